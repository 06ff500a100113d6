"""Points and lines of a sweep, by hand."""

import math

import pytest

from unweave.analysis.pareto import Spread, SweptCoder, pareto_lines


def _coder(line: str, setting: str, l0: float, ev: float, recovered: float = 0.9) -> SweptCoder:
    figures = {"l0": l0, "explained_variance": ev, "loss_recovered_mean": recovered}
    return SweptCoder(f"{line}-{setting}-{l0}", line, setting, figures)


def test_seeds_become_a_point_with_the_standard_error_of_their_mean() -> None:
    coders = [_coder("topk", "k=8", 8.0, 0.5), _coder("topk", "k=8", 8.0, 0.7), _coder("topk", "k=8", 8.0, 0.6)]
    (line,) = pareto_lines(coders)
    (point,) = line.points
    assert point.figures["l0"] == Spread(8.0, 0.0)
    assert point.figures["explained_variance"].mean == pytest.approx(0.6)
    assert point.figures["explained_variance"].error == pytest.approx(0.1 / math.sqrt(3))


def test_points_of_a_line_go_from_sparse_to_dense_and_one_seed_has_no_error() -> None:
    coders = [_coder("relu", "l1=0.1", 50.0, 0.9), _coder("topk", "k=8", 8.0, 0.6), _coder("relu", "l1=0.4", 9.0, 0.5)]
    lines = pareto_lines(coders)
    assert [(line.name, [point.setting for point in line.points]) for line in lines] == [
        ("relu", ["l1=0.4", "l1=0.1"]),
        ("topk", ["k=8"]),
    ]
    assert lines[1].points[0].figures["explained_variance"] == Spread(0.6, 0.0)


def test_a_coder_that_was_not_measured_is_left_out() -> None:
    assert pareto_lines([SweptCoder("a", "topk", "k=8", {}), _coder("topk", "k=9", math.nan, 0.5)]) == []


def test_a_figure_that_a_seed_lacks_has_no_mean_and_no_error() -> None:
    coders = [
        SweptCoder(f"seed{i}", "topk", "k=7", {"l0": 7.0 + i, "kl": value}) for i, value in enumerate([0.5, math.nan])
    ]
    point = pareto_lines(coders, ["kl"])[0].points[0]
    assert point.figures["l0"].error == pytest.approx(0.5)
    assert math.isnan(point.figures["kl"].mean) and math.isnan(point.figures["kl"].error)
