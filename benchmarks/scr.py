"""What the exact shortcut saves where latents are ablated: SCR and TPP, against encoding every token again.

python -m benchmarks.scr --run runs/demo --peers /tmp/dashboard/.venv/bin/python --json scr.json

All start from the model's rows at every content token of the texts, and score the same probes at the same numbers of
latents. The shortcut encodes once and pools the latents. By the definition every class of TPP, both ways of SCR, and
every number encode again, set latents to 0, decode, add the error, and pool (arXiv 2503.09532). That is timed twice
with our own coders, as defined, decoding all that is kept, and at its fastest, decoding only what is taken out; and as
SAEBench's own code does it, in the environment of ``--peers``. Rounds alternate; a ratio is taken within each. Where
probing was measured before, the pooled latents are there already: that is told apart. So is the largest difference of
the logits.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array, vstack

from benchmarks.worker import PEERS, Worker
from unweave.coders import SparseCoder
from unweave.evals.ablation import COUNTS, ablate, decoder
from unweave.evals.builtin_tasks import builtin_crossed, builtin_texts
from unweave.evals.controls import random_coder
from unweave.evals.pooled import content_sums, single_tokens, sparse, summed, token_sequences
from unweave.evals.probes import Probe
from unweave.formats.stdlib_corpus import stdlib_documents
from unweave.models.language_model import LanguageModel
from unweave.pipelines.convert import convert
from unweave.storage.run_folder import Run

_BATCH = 4096


class Prepared(NamedTuple):
    """Rows of all tokens, how they are pooled, and what is ablated."""

    x_BD: torch.Tensor
    """Text by text."""
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
    parser.add_argument("--suites", nargs="+", choices=("tpp", "scr"), default=("tpp", "scr"))
    parser.add_argument("--peers", type=Path, help="Python of an environment with SAEBench")
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    model = LanguageModel.load()
    coder = _coder(told.run, told.latents, model)
    documents = stdlib_documents()
    package = builtin_texts("package", documents, told.per_class)
    pair = builtin_crossed(documents, told.per_class // 2)[0].target
    rows = [
        _compare(suite, coder, _prepared(model, coder, task.texts, n_classes), told.rounds, told.peers)
        for suite, task, n_classes in (("tpp", package, len(package.classes)), ("scr", pair, 2))
        if suite in told.suites
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
    weights_CD = _weights(prepared)
    found = []
    for is_taken_L in _taken(coder, prepared):
        ablated = [without(coder, part, is_taken_L) for part in prepared.x_BD.split(_BATCH)]
        found.append(prepared.pooling_NB @ torch.cat(ablated).double().numpy() @ weights_CD.T)
    return np.stack(found).reshape(len(prepared.ranked), len(COUNTS), *found[0].shape)


def _taken(coder: SparseCoder, prepared: Prepared) -> torch.Tensor:
    """The latents that are taken out, for each class and number."""
    taken_SL = torch.zeros(len(prepared.ranked) * len(COUNTS), coder.n_latents, dtype=torch.bool)
    for number, ranked in enumerate(prepared.ranked):
        for place, n in enumerate(COUNTS):
            taken_SL[number * len(COUNTS) + place, torch.from_numpy(ranked[:n])] = True
    return taken_SL


def _weights(prepared: Prepared) -> np.ndarray:
    return np.stack([probe.weights for probe in prepared.probes])


@torch.no_grad()
def _without(coder: SparseCoder, x_BD: torch.Tensor, is_taken_L: torch.Tensor) -> torch.Tensor:
    codes = coder.encode(x_BD)
    return x_BD - (coder.decode(codes.where(is_taken_L[codes.latent_ids])) - coder.b_dec)


@torch.no_grad()
def _kept_with_error(coder: SparseCoder, x_BD: torch.Tensor, is_taken_L: torch.Tensor) -> torch.Tensor:
    codes = coder.encode(x_BD)
    error_BD = x_BD - coder.decode(codes)
    return coder.decode(codes.where(~is_taken_L[codes.latent_ids])) + error_BD


def _compare(suite: str, coder: SparseCoder, prepared: Prepared, rounds: int, peers: Path | None) -> dict[str, Any]:
    ways = {"shortcut": by_shortcut, "encoding": by_encoding, "definition": by_definition}
    logits = {name: way(coder, prepared) for name, way in ways.items()}
    steps: dict[str, Callable[[], float]] = {name: partial(_timed, way, coder, prepared) for name, way in ways.items()}
    with tempfile.TemporaryDirectory() as folder, _peer(peers, coder, prepared, Path(folder)) as peer:
        if peer is not None:
            theirs = np.load(Path(folder) / "logits.npy").reshape(logits["shortcut"].shape)
            logits["sae-bench"] = theirs
            steps["sae-bench"] = lambda: peer.ask("step")["seconds"]
        times: dict[str, list[float]] = {name: [] for name in steps}
        for number in range(rounds):
            for name in list(steps)[:: 1 if number % 2 else -1]:
                times[name].append(steps[name]())
    latents = pooled_latents(coder, prepared)
    scoring = [_timed(scored, coder, prepared, latents) for _ in range(rounds)]
    ratios = {
        name: sorted(slow / fast for slow, fast in zip(of_way, times["shortcut"], strict=True))
        for name, of_way in times.items()
        if name != "shortcut"
    }
    apart = {name: _apart(of_way, logits["shortcut"]) for name, of_way in logits.items() if name != "shortcut"}
    row = {
        "suite": suite,
        "tokens": len(prepared.x_BD),
        "n_latents": coder.n_latents,
        "rounds": rounds,
        "seconds": {name: statistics.median(of_way) for name, of_way in times.items()},
        "seconds_scoring": statistics.median(scoring),
        "ratios": ratios,
        "largest_relative_differences": apart,
    }
    print(f"{suite}, {row['tokens']:,} tokens: the shortcut takes {row['seconds']['shortcut']:.2f} s, ", end="")
    print(f"{row['seconds_scoring']:.3f} s of them for scoring")
    for name, of_way in ratios.items():
        spread = f"{statistics.median(of_way):.1f} times as fast as by {name} ({of_way[0]:.1f} to {of_way[-1]:.1f})"
        print(
            f"  {spread}, {row['seconds'][name]:.2f} s; logits differ by {apart[name]:.1e} of the largest", flush=True
        )
    return row


def _apart(logits: np.ndarray, others: np.ndarray) -> float:
    return float(np.abs(logits - others).max() / np.abs(others).max())


def _timed(way: Callable[..., Any], *told: Any) -> float:
    start = time.perf_counter()
    way(*told)
    return time.perf_counter() - start


def _peer(
    python: Path | None, coder: SparseCoder, prepared: Prepared, folder: Path
) -> AbstractContextManager[Worker | None]:
    """SAEBench in a process of its own, with the same rows, sets of latents and probes."""
    if python is None:
        return nullcontext()
    convert({"": coder}, folder / "coder", "saelens")
    arrays = {
        "rows": prepared.x_BD.numpy(),
        "lengths": np.diff(prepared.pooling_NB.indptr),
        "taken": _taken(coder, prepared).numpy(),
        "probes": _weights(prepared),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    paths = {name: str(folder / f"{name}.npy") for name in arrays}
    task = {"coder": str(folder / "coder"), "out": str(folder / "logits.npy"), **paths}
    (folder / "task.json").write_text(json.dumps(task))
    return Worker([python, PEERS / "sae_bench_ablation.py", folder / "task.json"])


if __name__ == "__main__":
    main()
