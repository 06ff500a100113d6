"""What the exact shortcut saves where latents are ablated: SCR and TPP, against encoding every token again.

python -m benchmarks.scr --json scr.json

All start from the model's rows at every content token of the texts, and score the same probes at the same numbers of
latents. The shortcut encodes once and pools the latents. By the definition every class of TPP, both ways of SCR, and
every number encode again, set latents to 0, decode, add the error, and pool (arXiv 2503.09532). That is timed twice:
as defined, decoding all that is kept, and at its fastest here, decoding only what is taken out. Rounds alternate; a
ratio is taken within each. Where probing was measured before, the pooled latents are there already: that is told apart.
So is the largest difference of the logits.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array, vstack

from unweave.coders import SparseCoder
from unweave.evals.ablation import COUNTS, ablate, decoder
from unweave.evals.builtin_tasks import builtin_crossed, builtin_texts
from unweave.evals.controls import random_coder
from unweave.evals.pooled import content_sums, single_tokens, sparse, summed, token_sequences
from unweave.evals.probes import Probe
from unweave.formats.stdlib_corpus import stdlib_documents
from unweave.models.language_model import LanguageModel
from unweave.storage.run_folder import Run

_BATCH = 4096


class Prepared(NamedTuple):
    """Rows of all tokens, how they are pooled, and what is ablated."""

    x_BD: torch.Tensor
    pooling_NB: csr_array
    probes: list[Probe]
    ranked: list[np.ndarray]
    """For each class or pair the latents in the order in which they are taken out."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run whose coder is measured; else one of random directions")
    parser.add_argument("--latents", type=int, default=4096, help="of the coder of random directions")
    parser.add_argument("--per-class", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    model = LanguageModel.load()
    coder = _coder(told.run, told.latents, model)
    documents = stdlib_documents()
    package = builtin_texts("package", documents, told.per_class)
    pair = builtin_crossed(documents, told.per_class // 2)[0].target
    rows = [
        _compare("tpp", coder, _prepared(model, coder, package.texts, len(package.classes)), told.rounds),
        _compare("scr", coder, _prepared(model, coder, pair.texts, 2), told.rounds),
    ]
    if told.json:
        told.json.write_text(json.dumps(rows, indent=1))


def _coder(run: Path | None, n_latents: int, model: LanguageModel) -> SparseCoder:
    if run is not None:
        return Run(run).coder
    from unweave.coders import Wiring

    width = model.width("layers.2.resid_post")
    return random_coder(Wiring.sae(width, "layers.2.resid_post"), n_latents, 40.0, torch.zeros(width))


def _prepared(model: LanguageModel, coder: SparseCoder, texts: tuple[str, ...], n_classes: int) -> Prepared:
    """Probes and orders are drawn: what they are does not change how long it takes."""
    sequences = token_sequences(model, texts)
    sums = content_sums(model, sequences, "mean")
    every = summed(model, {"coder": coder}, sequences, single_tokens(sums.texts, sums.positions))
    x_BD = torch.from_numpy(every.rows["coder"]).to(coder.W_dec.dtype)
    entries = np.arange(len(sums.texts))
    pooling = csr_array((sums.weights, (sums.examples, entries)), shape=(sums.n_examples, len(entries)))
    generator = np.random.default_rng(0)
    probes = [Probe(generator.normal(size=coder.d_model), 0.0) for _ in range(n_classes)]
    used = np.unique(every.latents["coder"].indices)
    ranked = [generator.permutation(used)[: max(COUNTS)] for _ in range(n_classes)]
    return Prepared(x_BD, pooling, probes, ranked)


def pooled_latents(coder: SparseCoder, prepared: Prepared) -> csr_array:
    """Mean latents of each text: what encoding once is for."""
    parts = [sparse(coder.encode(part)) for part in prepared.x_BD.split(_BATCH)]
    return csr_array(prepared.pooling_NB @ csr_array(vstack(parts, format="csr")))


def scored(coder: SparseCoder, prepared: Prepared, latents: csr_array) -> np.ndarray:
    """Logits [classes, counts, texts, probes] by the shortcut."""
    rows = prepared.pooling_NB @ prepared.x_BD.double().numpy()
    W_dec = decoder(coder)
    found = [ablate(prepared.probes, rows, latents, W_dec, ranked, COUNTS).after for ranked in prepared.ranked]
    return np.array([[of_class[n] for n in COUNTS] for of_class in found])


def by_shortcut(coder: SparseCoder, prepared: Prepared) -> np.ndarray:
    """The same, encoding included."""
    return scored(coder, prepared, pooled_latents(coder, prepared))


def by_encoding(coder: SparseCoder, prepared: Prepared) -> np.ndarray:
    """The same, with every token encoded again for each class and number; only what is taken out is decoded."""
    return _again(coder, prepared, _without)


def by_definition(coder: SparseCoder, prepared: Prepared) -> np.ndarray:
    """The same, with all that is kept decoded as well, and the error added."""
    return _again(coder, prepared, _kept_with_error)


def _again(coder: SparseCoder, prepared: Prepared, without: Callable[..., torch.Tensor]) -> np.ndarray:
    weights_CD = np.stack([probe.weights for probe in prepared.probes])
    found = []
    for ranked in prepared.ranked:
        of_class = []
        for n in COUNTS:
            is_taken = torch.zeros(coder.n_latents, dtype=torch.bool)
            is_taken[torch.from_numpy(ranked[:n])] = True
            ablated = [without(coder, part, is_taken) for part in prepared.x_BD.split(_BATCH)]
            of_class.append(prepared.pooling_NB @ torch.cat(ablated).double().numpy() @ weights_CD.T)
        found.append(of_class)
    return np.array(found)


@torch.no_grad()
def _without(coder: SparseCoder, x_BD: torch.Tensor, is_taken_L: torch.Tensor) -> torch.Tensor:
    codes = coder.encode(x_BD)
    return x_BD - (coder.decode(codes.where(is_taken_L[codes.latent_ids])) - coder.b_dec)


@torch.no_grad()
def _kept_with_error(coder: SparseCoder, x_BD: torch.Tensor, is_taken_L: torch.Tensor) -> torch.Tensor:
    codes = coder.encode(x_BD)
    error_BD = x_BD - coder.decode(codes)
    return coder.decode(codes.where(~is_taken_L[codes.latent_ids])) + error_BD


def _compare(suite: str, coder: SparseCoder, prepared: Prepared, rounds: int) -> dict[str, Any]:
    ways = {"shortcut": by_shortcut, "encoding": by_encoding, "definition": by_definition}
    times: dict[str, list[float]] = {name: [] for name in ways}
    logits = {name: way(coder, prepared) for name, way in ways.items()}
    for number in range(rounds):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            start = time.perf_counter()
            ways[name](coder, prepared)
            times[name].append(time.perf_counter() - start)
    latents, scoring = pooled_latents(coder, prepared), []
    for _ in range(rounds):
        start = time.perf_counter()
        scored(coder, prepared, latents)
        scoring.append(time.perf_counter() - start)
    ratios = {
        name: sorted(slow / fast for slow, fast in zip(times[name], times["shortcut"], strict=True))
        for name in ("definition", "encoding")
    }
    apart = float(np.abs(logits["shortcut"] - logits["definition"]).max() / np.abs(logits["definition"]).max())
    row = {
        "suite": suite,
        "tokens": len(prepared.x_BD),
        "n_latents": coder.n_latents,
        "rounds": rounds,
        "seconds": {name: statistics.median(of_way) for name, of_way in times.items()},
        "seconds_scoring": statistics.median(scoring),
        "ratios": ratios,
        "largest_relative_difference": apart,
    }
    told = "; ".join(
        f"{statistics.median(of_way):.1f} times as fast as by {name} ({of_way[0]:.1f} to {of_way[-1]:.1f})"
        for name, of_way in ratios.items()
    )
    seconds = ", ".join(f"{name} {of_way:.2f} s" for name, of_way in row["seconds"].items())
    print(
        f"{suite}: {told}; {seconds}, scoring alone {row['seconds_scoring']:.3f} s, for {row['tokens']:,} tokens; "
        f"logits differ by {apart:.1e} of the largest",
        flush=True,
    )
    return row


if __name__ == "__main__":
    main()
