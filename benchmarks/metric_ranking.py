"""Which figures tell how well a coder finds features? Those of many coders against MCC with features that are known.

python -m benchmarks.metric_ranking --json ranking.json

Coders of several architectures, widths, sparsities and seeds are trained on the same synthetic rows. Of each, MCC with
the true directions is known, and the figures that one has without the truth are measured on held-out rows. What is told
is Spearman's rank correlation of each figure with MCC over all coders, and over coders of one width and about one L0,
averaged; with 95 % intervals by drawing settings, each with all its seeds, again and again.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from unweave.activations.synthetic import SyntheticConfig, SyntheticData
from unweave.analysis.cofiring import CoFiring, cofiring_figures
from unweave.analysis.geometry import geometry
from unweave.analysis.matching import mean_matched
from unweave.coders import SparseCoder, Wiring, trainable
from unweave.config import build
from unweave.metrics import L0, CodedRows, Density, Kurtosis, Reconstruction, RowRatios
from unweave.metrics.ground_truth import mcc
from unweave.training import loop
from unweave.training.config import TrainingConfig
from unweave.training.loop import finish, new_trainee

ARCHITECTURES = ("topk", "batch_topk", "relu", "jumprelu", "gated", "matryoshka")
_SITE = "synthetic"
_BATCH = 512


@dataclass(frozen=True)
class Setting:
    """What coders of several seeds share."""

    architecture: str
    n_latents: int
    sparsity: float
    """Times as many active latents as there are features, or the inverse of that for the weight of a penalty."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--d-model", type=int, default=48)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    data = SyntheticData(
        SyntheticConfig(
            n_features=told.features, d_model=told.d_model, min_probability=0.02, max_probability=0.2, noise=0.05
        )
    )
    rows = []
    for setting in settings(told.features):
        started = time.perf_counter()
        coders = [_trained(setting, data, told.steps, seed) for seed in range(told.seeds)]
        for seed, coder in enumerate(coders):
            figures = measured(coder, data) | {"stability": _stability(coders, seed)}
            truth = mcc(coder.W_dec, data.features_FD)
            rows.append({**vars(setting), "seed": seed, "mcc": truth, "figures": figures})
        spent = time.perf_counter() - started
        print(f"{setting}: MCC {rows[-1]['mcc']:.3f}, L0 {rows[-1]['figures']['l0']:.1f}, {spent:.0f} s", flush=True)
    ranks = ranking(rows)
    for name, (value, low, high, within) in ranks.items():
        print(f"{name:32} {value:+.2f} ({low:+.2f} to {high:+.2f}), at one L0 {within:+.2f}")
    if told.json:
        told.json.write_text(
            json.dumps({"settings": vars(told) | {"json": str(told.json)}, "coders": rows, "ranks": ranks})
        )


def settings(n_features: int) -> Iterator[Setting]:
    """Every architecture at two widths and three sparsities."""
    for architecture in ARCHITECTURES:
        for n_latents in (n_features, 2 * n_features):
            for sparsity in (0.5, 1.0, 2.0):
                yield Setting(architecture, n_latents, sparsity)


def _trained(setting: Setting, data: SyntheticData, steps: int, seed: int) -> SparseCoder:
    cls = trainable(setting.architecture)
    wanted = float(data.probabilities_F.sum())
    values: dict[str, Any] = {"n_latents": setting.n_latents}
    if cls.sparsity == "k":
        values["k"] = max(1, round(wanted * setting.sparsity))
    else:
        values[cls.sparsity] = getattr(build(cls.Config, values, "coder"), cls.sparsity) / setting.sparsity**2
    if "k_aux" in {field.name for field in fields(cls.Config)}:
        values["k_aux"] = data.features_FD.shape[1] // 2
    training = TrainingConfig(
        rows=steps * _BATCH,
        batch=_BATCH,
        lr=3e-3,
        warm_up=0.05,
        decay=0.3,
        dead_window=steps // 10 * _BATCH,
        buffer=2 * _BATCH,
        log_every=steps,
    )
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    sample = {_SITE: data.sample(8192, generator).x_BD}
    coder = cls(build(cls.Config, values, "coder"), Wiring.sae(data.features_FD.shape[1], _SITE))
    trainee = new_trainee("coder", coder, sample, training)
    for _ in loop.train([trainee], data.batches(_BATCH, generator), training):
        pass
    return finish(trainee)


@torch.no_grad()
def measured(coder: SparseCoder, data: SyntheticData, n_rows: int = 20_480) -> dict[str, float]:
    """What is known of a coder without the truth; of sizes that are better small, as they are."""
    generator = torch.Generator().manual_seed(2**31)
    mean_D = data.sample(8192, generator).x_BD.mean(0)
    metrics = [
        Reconstruction(coder.wiring.d_write),
        L0(),
        Density(coder.n_latents),
        RowRatios(mean_D),
        Kurtosis(mean_D, coder.n_latents),
    ]
    together = CoFiring(coder.n_latents, coder.n_latents)
    for _ in range(n_rows // 2048):
        x = data.sample(2048, generator).x_BD
        codes = coder.encode(x)
        codes = codes.where(codes.values != 0)
        batch = CodedRows(x, codes, coder.reconstruct(codes, x), torch.arange(2048) % 64)
        for metric in metrics:
            metric.update(batch)
        together.update(codes, codes)
    figures: dict[str, float] = {}
    for metric in metrics:
        figures |= metric.compute()
    return figures | cofiring_figures(together) | geometry(coder.W_dec, coder.W_enc).figures


def _stability(coders: Sequence[SparseCoder], seed: int) -> float:
    """The mean cosine of a coder's latents with those of the other seeds that they are matched to."""
    others = [other for number, other in enumerate(coders) if number != seed]
    return float(np.mean([mean_matched(coders[seed].W_dec, other.W_dec) for other in others]))


def ranking(rows: Sequence[dict[str, Any]], draws: int = 300) -> dict[str, tuple[float, float, float, float]]:
    """Of each figure its rank correlation with MCC, a 95 % interval, and the one at about equal L0; best first."""
    known = {name: [row["figures"][name] for row in rows] for name in rows[0]["figures"]}
    names = [name for name, values in known.items() if np.isfinite(values).all() and np.ptp(values) > 0]
    truth = np.array([row["mcc"] for row in rows])
    values = {name: np.array([row["figures"][name] for row in rows]) for name in names}
    groups = _of_one_l0(rows)
    keys = [(row["architecture"], row["n_latents"], row["sparsity"]) for row in rows]
    places = [np.array([i for i, own in enumerate(keys) if own == key]) for key in dict.fromkeys(keys)]
    random = np.random.default_rng(0)
    drawn = [np.concatenate([places[i] for i in random.integers(0, len(places), len(places))]) for _ in range(draws)]
    found = {}
    for name in names:
        again = [_rank(values[name][draw], truth[draw]) for draw in drawn]
        within = [_rank(values[name][group], truth[group]) for group in groups]
        low, high = np.nanquantile(again, (0.025, 0.975))
        found[name] = (_rank(values[name], truth), float(low), float(high), float(np.nanmean(within)))
    return dict(sorted(found.items(), key=lambda item: -abs(np.nan_to_num(item[1][0]))))


def _of_one_l0(rows: Sequence[dict[str, Any]]) -> list[np.ndarray]:
    """Coders of one width in thirds by their L0."""
    groups = []
    for width in sorted({row["n_latents"] for row in rows}):
        own = np.array([i for i, row in enumerate(rows) if row["n_latents"] == width])
        order = own[np.argsort([rows[i]["figures"]["l0"] for i in own])]
        groups += np.array_split(order, 3)
    return groups


def _rank(values: np.ndarray, truth: np.ndarray) -> float:
    if len(set(values.tolist())) < 2 or len(set(truth.tolist())) < 2:
        return float("nan")
    return float(np.asarray(spearmanr(values, truth))[0])


if __name__ == "__main__":
    main()
