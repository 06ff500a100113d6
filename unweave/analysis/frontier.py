"""One number for what sparsity costs a line of coders: its frontier, the area under it, and figures at a given L0.

With points (L0, v) of one architecture at one width, v better when larger:

    frontier       points of which no other has L0 as small and v as large
    hypervolume    area in (log10 L0, v) of what some point dominates, up to a reference point that all should dominate
                   (Zitzler and Thiele 1998): the union of [log10 L0_i, log10 L0_ref] x [v_ref, v_i]
    at an L0       v between the two points on either side, linear in log L0

Nothing is extrapolated: at an L0 outside those measured a line has no figure, which is None here and a gap in a table.
Figures that are better when smaller change their sign on the way in and out.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from unweave.analysis.pareto import ParetoLine, ParetoPoint, Spread
from unweave.errors import UserError
from unweave.metrics.base import Definition

ISO_L0 = (20, 40, 80, 160)
"""Active latents per row at which lines are compared."""

DEFINITIONS = (
    Definition(
        "frontier_hypervolume",
        "Area under the frontier",
        "Area, in decades of L0 times the figure, of all that some coder of the line is at least as good as, from the "
        "reference point on.",
        "compare with the same reference only; larger is better",
    ),
    Definition(
        "frontier_points",
        "Coders on the frontier",
        "Number of settings of the line of which no other is both sparser and better.",
        "all of them",
    ),
    *(
        Definition(
            f"frontier_at_l0_{l0}",
            f"At {l0} active latents",
            f"The figure at an L0 of {l0}, between the coders on either side, linear in the logarithm of L0.",
            "compare between lines; a gap where no coder is on one of the sides",
        )
        for l0 in ISO_L0
    ),
)


class Reference(NamedTuple):
    """A point that every coder should beat: as dense as one would accept, and as bad."""

    l0: float
    value: float


def frontier(line: ParetoLine, name: str, *, smaller_is_better: bool = False) -> list[ParetoPoint]:
    """The points that no other dominates, sparsest first; of equal ones the first."""
    sign = -1.0 if smaller_is_better else 1.0
    found: list[ParetoPoint] = []
    best = -math.inf
    points = _points(line, name)
    for point in sorted(points, key=lambda point: (point.figures["l0"].mean, -sign * point.figures[name].mean)):
        if sign * point.figures[name].mean > best:
            best = sign * point.figures[name].mean
            found.append(point)
    return found


def hypervolume(line: ParetoLine, name: str, reference: Reference, *, smaller_is_better: bool = False) -> float:
    """The area of the points that dominate the reference; others add nothing."""
    if not reference.l0 > 0:
        raise UserError(f"a reference needs an L0 above 0, got {reference.l0}")
    sign = -1.0 if smaller_is_better else 1.0
    area, reached = 0.0, sign * reference.value
    for point in frontier(line, name, smaller_is_better=smaller_is_better):
        width, value = math.log10(reference.l0 / point.figures["l0"].mean), sign * point.figures[name].mean
        if width > 0 and value > reached:
            area += width * (value - reached)
            reached = value
    return area


def at_l0(line: ParetoLine, name: str, l0: int | float) -> Spread | None:
    """The figure at an L0, with the error that follows from those of the two points; None outside the line."""
    if not l0 > 0:
        raise UserError(f"figures are compared at an L0 above 0, got {l0}")
    points = sorted(_points(line, name), key=lambda point: point.figures["l0"].mean)
    measured = [point.figures["l0"].mean for point in points]
    place = bisect_left(measured, l0)
    if place < len(points) and measured[place] == l0:
        return points[place].figures[name]
    if not 0 < place < len(points):
        return None
    low, high = (point.figures[name] for point in points[place - 1 : place + 1])
    share = math.log(l0 / measured[place - 1]) / math.log(measured[place] / measured[place - 1])
    mean = low.mean + share * (high.mean - low.mean)
    return Spread(mean, math.hypot((1 - share) * low.error, share * high.error))


def frontier_figures(
    line: ParetoLine,
    name: str,
    reference: Reference,
    *,
    l0s: Sequence[int | float] = ISO_L0,
    smaller_is_better: bool = False,
) -> dict[str, Spread | None]:
    """All of one line and figure; the area and the number of points have no error."""
    area = hypervolume(line, name, reference, smaller_is_better=smaller_is_better)
    n_points = len(frontier(line, name, smaller_is_better=smaller_is_better))
    figures: dict[str, Spread | None] = {
        "frontier_hypervolume": Spread(area, 0.0),
        "frontier_points": Spread(float(n_points), 0.0),
    }
    return figures | {f"frontier_at_l0_{l0:g}": at_l0(line, name, l0) for l0 in l0s}


def _points(line: ParetoLine, name: str) -> list[ParetoPoint]:
    """Those on which the figure is known and the L0 has a logarithm."""
    for point in line.points:
        if name not in point.figures:
            known = ", ".join(point.figures)
            raise UserError(f"no figure {name!r} in line {line.name!r} (it has {known}); name it to pareto_lines")
    return [point for point in line.points if math.isfinite(point.figures[name].mean) and point.figures["l0"].mean > 0]
