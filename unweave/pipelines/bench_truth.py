"""Train every architecture on rows whose features are known, and mark each against the truth."""

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unweave.activations.synthetic import SyntheticConfig, SyntheticData
from unweave.coders import CoderConfig, SparseCoder, Wiring, trainable, trainable_architectures
from unweave.config import build
from unweave.errors import UserError
from unweave.evals.hierarchy_absorption import measure_hierarchy
from unweave.formats.files import write_json
from unweave.metrics.ground_truth import DetectedFeatures, FeatureDetection, best_matches, mcc, uniqueness
from unweave.pipelines.progress import Bar, Watch
from unweave.training import loop
from unweave.training.config import TrainingConfig
from unweave.training.loop import finish, new_trainee
from unweave.training.trainee import Trainee

_SITE = "synthetic"
_SAMPLE_ROWS = 16_384
_NEAR = 0.05
"""Relative distance from the wanted L0 at which the search for a coefficient ends."""

FIGURES = ("l0", "explained_variance", "mcc", "f1", "precision", "recall", "uniqueness", "dead_share", "seconds")
OF_HIERARCHY = ("parent_silent_with_child", "parent_silent_alone", "parent_absorbed", "child_holds_parent")
"""Figures that there are of features in trees alone."""


@dataclass(frozen=True, kw_only=True)
class TruthBench:
    """What every architecture gets alike."""

    data: SyntheticConfig = field(default_factory=SyntheticConfig)
    """The features and when they fire."""
    n_latents: int = 0
    """Latents of every coder; 0 for as many as there are features."""
    l0: float = 0.0
    """Active latents per row, by k or by searching the coefficient; 0 for as many as there are features in a row."""
    steps: int = 3000
    """Training steps of every coder."""
    batch: int = 1024
    """Rows per step."""
    lr: float = 3e-3
    """Peak learning rate."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One coder of each architecture for each seed."""
    heldout: int = 20_000
    """Rows on which the coders are marked."""
    tries: int = 7
    """Most runs of a search for a coefficient, each of a third of the steps."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "heldout", "tries"):
            if getattr(self, name) < 1:
                raise UserError(f"bench.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("n_latents", "l0"):
            if getattr(self, name) < 0:
                raise UserError(f"bench.{name} must not be negative, got {getattr(self, name)}")
        if not self.seeds:
            raise UserError("bench.seeds needs at least one seed")

    @property
    def has_hierarchy(self) -> bool:
        """Whether some features fire only where another does."""
        return self.data.roots > 0

    def training(self, steps: int) -> TrainingConfig:
        return TrainingConfig(
            rows=steps * self.batch,
            batch=self.batch,
            lr=self.lr,
            warm_up=0.05,
            decay=0.3,
            dead_window=max(1, steps // 10) * self.batch,
            buffer=2 * self.batch,
            log_every=max(1, steps // 100),
        )


@dataclass(frozen=True)
class Marked:
    """The figures of one architecture, one of each for every seed."""

    architecture: str
    setting: str
    """The setting that its sparsity follows from, with its value."""
    figures: dict[str, list[float]]

    def mean(self, name: str) -> float:
        return statistics.fmean(self.figures[name])

    def standard_error(self, name: str) -> float:
        """Of the mean over seeds; 0 where there is one seed."""
        values = self.figures[name]
        return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def bench_truth(bench: TruthBench, names: list[str], watch: Watch) -> Iterator[Marked]:
    """Marks of each architecture in turn; ``names`` is empty for all of them."""
    data = SyntheticData(bench.data)
    for name in names or list(trainable_architectures()):
        cls = trainable(name)
        config = _base_config(cls, bench, data)
        if cls.sparsity != "k":
            with watch.bar(f"{name}: {cls.sparsity}", bench.tries * (bench.steps // 3)) as bar:
                config = _search(cls, config, bench, data, bar)
        results = []
        with watch.bar(name, bench.steps * len(bench.seeds)) as bar:
            for i, seed in enumerate(bench.seeds):
                coder, seconds = _train(cls, config, bench, data, seed, bench.steps, bar, i * bench.steps)
                marks = _mark(coder, data, bench.heldout) | {"seconds": seconds}
                if bench.has_hierarchy:
                    marks |= measure_hierarchy(data, {name: coder}, n_rows=bench.heldout)[name].figures
                results.append(marks)
        known = [*FIGURES, *(OF_HIERARCHY if bench.has_hierarchy else ())]
        figures = {figure: [result[figure] for result in results] for figure in known}
        yield Marked(name, f"{cls.sparsity}={getattr(config, cls.sparsity):.4g}", figures)


def write_marks(path: Path, bench: TruthBench, marks: list[Marked]) -> None:
    """All figures of all seeds, with what every architecture got."""
    found = [{"architecture": mark.architecture, "setting": mark.setting, **mark.figures} for mark in marks]
    write_json(path, {"bench": asdict(bench), "architectures": found})


def _base_config(cls: type[SparseCoder], bench: TruthBench, data: SyntheticData) -> CoderConfig:
    l0 = _wanted(bench, data)
    values: dict[str, Any] = {"n_latents": bench.n_latents or bench.data.n_features}
    known = {f.name for f in fields(cls.Config)}
    if cls.sparsity == "k":
        values["k"] = max(1, round(l0))
    if "k_aux" in known:
        values["k_aux"] = max(1, bench.data.d_model // 2)
    return build(cls.Config, values, f"coder.{cls.__name__}")


def _wanted(bench: TruthBench, data: SyntheticData) -> float:
    return bench.l0 or data.probabilities_F.sum().item()


def _search(
    cls: type[SparseCoder], config: CoderConfig, bench: TruthBench, data: SyntheticData, bar: Bar
) -> CoderConfig:
    """The coefficient at which short runs have the wanted L0: steps of 4 until two enclose it, then halving in logs."""
    wanted, steps = _wanted(bench, data), max(1, bench.steps // 3)
    value, low, high, best = float(getattr(config, cls.sparsity)), 0.0, math.inf, (math.inf, config)
    for attempt in range(bench.tries):
        candidate = replace(config, **{cls.sparsity: value})
        coder, _ = _train(cls, candidate, bench, data, bench.seeds[0], steps, bar, attempt * steps)
        l0 = _mark(coder, data, bench.heldout // 4)["l0"]
        best = min(best, (abs(math.log(max(l0, 1e-3) / wanted)), candidate), key=lambda found: found[0])
        if best[0] < _NEAR:
            break
        if l0 > wanted:
            low = value
        else:
            high = value
        value = math.sqrt(low * high) if low > 0 and high < math.inf else (4 * low if low > 0 else high / 4)
    bar.at(bench.tries * steps)
    return best[1]


def _train(
    cls: type[SparseCoder],
    config: CoderConfig,
    bench: TruthBench,
    data: SyntheticData,
    seed: int,
    steps: int,
    bar: Bar,
    done: int,
) -> tuple[SparseCoder, float]:
    """A finished coder and how long its training took."""
    torch.manual_seed(seed)
    training = bench.training(steps)
    generator = torch.Generator().manual_seed(seed)
    sample = {_SITE: data.sample(_SAMPLE_ROWS, generator).x_BD}
    wiring = Wiring.sae(bench.data.d_model, _SITE)
    trainee: Trainee = new_trainee(cls.__name__, cls(config, wiring), sample, training)
    start = time.perf_counter()
    for progress in loop.train([trainee], data.batches(bench.batch, generator), training):
        figures = progress.metrics[cls.__name__]
        bar.at(done + progress.step + 1, L0=f"{figures['l0']:.0f}", EV=f"{figures['explained_variance']:.2f}")
    return finish(trainee), time.perf_counter() - start


def _mark(coder: SparseCoder, data: SyntheticData, n_rows: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(2**31)
    matches = best_matches(coder.W_dec, data.features_FD)
    detection = FeatureDetection(matches, data.features_FD.shape[0])
    error = spread = n_active = 0.0
    for start in range(0, n_rows, 4096):
        rows = data.sample(min(4096, n_rows - start), generator)
        codes = coder.encode(rows.x_BD)
        detection.update(DetectedFeatures(codes, rows.magnitudes_BF))
        error += _squares(rows.x_BD - coder.reconstruct(codes, rows.x_BD))
        spread += _squares(rows.x_BD - rows.x_BD.mean(0))
        n_active += int((codes.values != 0).sum())
    return {
        "l0": n_active / n_rows,
        "explained_variance": 1.0 - error / spread,
        "mcc": mcc(coder.W_dec, data.features_FD),
        "uniqueness": uniqueness(coder.W_dec, data.features_FD),
        **detection.compute(),
    }


def _squares(x: Tensor) -> float:
    return x.double().square().sum().item()
