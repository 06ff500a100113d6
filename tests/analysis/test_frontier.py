"""Frontiers of a few points, worked by hand."""

import math

import pytest

from unweave.analysis.frontier import DEFINITIONS, Reference, at_l0, frontier, frontier_figures, hypervolume
from unweave.analysis.pareto import ParetoLine, ParetoPoint, Spread, SweptCoder, pareto_lines
from unweave.errors import UserError


def _line(*points: tuple[float, float], error: float = 0.0) -> ParetoLine:
    return ParetoLine(
        "topk",
        [ParetoPoint(f"l0={l0:g}", {"l0": Spread(l0, 0.0), "ev": Spread(value, error)}) for l0, value in points],
    )


LINE = _line((10, 0.5), (100, 0.8), (50, 0.4), (100, 0.7), (1000, 0.9))
"""The coder at 50 is worse than the one at 10, and one at 100 worse than the other."""


def test_the_frontier_has_the_points_that_no_other_is_better_than() -> None:
    assert [point.setting for point in frontier(LINE, "ev")] == ["l0=10", "l0=100", "l0=1000"]
    assert [point.figures["ev"].mean for point in frontier(LINE, "ev")] == [0.5, 0.8, 0.9]
    assert [point.figures["ev"].mean for point in frontier(LINE, "ev", smaller_is_better=True)] == [0.5, 0.4]


def test_the_area_is_the_sum_of_steps_in_decades() -> None:
    """From the reference (1000, 0.3): 2 decades x 0.2, 1 decade x 0.3, and the last point adds a width of 0."""
    assert hypervolume(LINE, "ev", Reference(1000, 0.3)) == pytest.approx(2 * 0.2 + 1 * 0.3)
    assert hypervolume(LINE, "ev", Reference(1000, 0.6)) == pytest.approx(1 * 0.2)
    assert hypervolume(LINE, "ev", Reference(5, 0.0)) == 0.0
    mirrored = _line(*((point.figures["l0"].mean, -point.figures["ev"].mean) for point in LINE.points))
    found = hypervolume(mirrored, "ev", Reference(1000, -0.3), smaller_is_better=True)
    assert found == pytest.approx(0.7)


def test_a_better_line_has_a_larger_area() -> None:
    better = _line((10, 0.6), (100, 0.8), (1000, 0.9))
    reference = Reference(1000, 0.3)
    assert hypervolume(better, "ev", reference) > hypervolume(LINE, "ev", reference)


def test_between_two_points_a_figure_is_linear_in_the_logarithm() -> None:
    line = _line((100, 0.8), (10, 0.5), error=0.02)
    found = at_l0(line, "ev", 10**1.5)
    assert found is not None
    assert found.mean == pytest.approx(0.65)
    assert found.error == pytest.approx(0.02 / math.sqrt(2))
    assert at_l0(line, "ev", 10) == Spread(0.5, 0.02)
    assert at_l0(line, "ev", 100) == Spread(0.8, 0.02)


def test_nothing_is_extrapolated() -> None:
    figures = frontier_figures(_line((30, 0.5), (100, 0.8)), "ev", Reference(200, 0.0))
    assert figures["frontier_at_l0_20"] is None and figures["frontier_at_l0_160"] is None
    assert figures["frontier_at_l0_40"] is not None and figures["frontier_at_l0_80"] is not None
    assert figures["frontier_points"] == Spread(2, 0.0)
    assert set(figures) == {definition.name for definition in DEFINITIONS}
    assert at_l0(_line((30, 0.5)), "ev", 31) is None


def test_points_without_the_figure_are_left_out() -> None:
    line = _line((10, 0.5), (20, math.nan), (40, 0.7))
    assert len(frontier(line, "ev")) == 2
    found = at_l0(line, "ev", 20)
    assert found is not None and found.mean == pytest.approx(0.6)


def test_lines_of_a_sweep_have_the_figures_that_are_asked_for() -> None:
    coders = [SweptCoder(f"{k}", "topk", f"k={k}", {"l0": k, "probe": k / 100}) for k in (10, 40)]
    (line,) = pareto_lines(coders, ["probe"])
    found = at_l0(line, "probe", 20)
    assert found is not None and found.mean == pytest.approx(0.25)
    with pytest.raises(UserError, match=r"no figure 'ev' in line 'topk' \(it has l0, probe\)"):
        frontier(line, "ev")


def test_an_l0_without_a_logarithm_is_refused() -> None:
    with pytest.raises(UserError, match="above 0, got 0"):
        at_l0(LINE, "ev", 0)
    with pytest.raises(UserError, match="above 0, got -1"):
        hypervolume(LINE, "ev", Reference(-1, 0))
