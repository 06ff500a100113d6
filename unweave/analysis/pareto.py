"""What sparsity costs: figures of many coders against L0, with seeds as error bars."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

SHOWN = ("explained_variance", "loss_recovered_mean")
"""Figures that are drawn against L0."""


class SweptCoder(NamedTuple):
    """One coder of a sweep."""

    name: str
    line: str
    """What it shares with the coders to which it is joined by a line: architecture, site, width, ..."""
    setting: str
    """What sets it apart from them, such as ``k=32``; coders that differ only in their seed have the same."""
    figures: Mapping[str, float]


class Spread(NamedTuple):
    """A figure over seeds."""

    mean: float
    error: float
    """Standard error of the mean over seeds; 0 where there is one seed."""


class ParetoPoint(NamedTuple):
    """A setting, over its seeds."""

    setting: str
    figures: dict[str, Spread]


class ParetoLine(NamedTuple):
    """Settings that differ in sparsity only, sparsest first."""

    name: str
    points: list[ParetoPoint]


def pareto_lines(coders: Iterable[SweptCoder], names: Sequence[str] = SHOWN) -> list[ParetoLine]:
    """Coders joined to points over their seeds, and points to lines, in the order in which they come.

    Points have ``l0`` and the figures called ``names``. Coders without a finite ``l0`` are left out.
    """
    lines: dict[str, dict[str, list[SweptCoder]]] = {}
    for coder in coders:
        if math.isfinite(coder.figures.get("l0", math.nan)):
            lines.setdefault(coder.line, {}).setdefault(coder.setting, []).append(coder)
    found = []
    for name, settings in lines.items():
        points = [ParetoPoint(setting, _over_seeds(group, names)) for setting, group in settings.items()]
        found.append(ParetoLine(name, sorted(points, key=lambda point: point.figures["l0"].mean)))
    return found


def _over_seeds(coders: list[SweptCoder], names: Sequence[str]) -> dict[str, Spread]:
    spreads = {}
    for name in ("l0", *names):
        values = [float(coder.figures.get(name, math.nan)) for coder in coders]
        spreads[name] = Spread(statistics.fmean(values), _error(values))
    return spreads


def _error(values: list[float]) -> float:
    if not all(map(math.isfinite, values)):
        return math.nan
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
