"""Lines of a sweep by one number, laws that are fitted or said to be out of reach, and chains of coders by hand."""

import math

import numpy as np
import pytest
import torch

from unweave.analysis.pareto import ParetoLine, ParetoPoint, Spread
from unweave.analysis.scaling import ScalingRun
from unweave.analysis.swept import LawPoint, family_chain, fitted_law, frontiers, kept_start, track_chain


def line(name: str, points: dict[float, float]) -> ParetoLine:
    made = [ParetoPoint(f"k={l0}", {"l0": Spread(l0, 0.0), "ev": Spread(v, 0.0)}) for l0, v in points.items()]
    return ParetoLine(name, made)


def points(widths: list[int], ks: list[int]) -> list[LawPoint]:
    """Of the law exp(-1) / sqrt(n k) + 0.1 / sqrt(k), without noise."""
    return [
        LawPoint(f"k={k}", ScalingRun(math.exp(-1) / math.sqrt(n * k) + 0.1 / math.sqrt(k), n, k, 7.0 * n))
        for n in widths
        for k in ks
    ]


def test_lines_are_compared_up_to_twice_the_densest_coder_and_where_some_line_has_been() -> None:
    found = frontiers([line("a", {10: 0.5, 100: 0.7}), line("b", {30: 0.6})], ["ev"])
    assert found.reference_l0 == 200
    a, b = found.figures["ev"]["a"], found.figures["ev"]["b"]
    assert list(a) == [f"frontier_{name}" for name in ("hypervolume", "points", "at_l0_20", "at_l0_40", "at_l0_80")]
    area = a["frontier_hypervolume"]
    assert area is not None and area.mean == pytest.approx(0.5 * math.log10(20) + 0.2 * math.log10(2))
    at_20 = a["frontier_at_l0_20"]
    assert at_20 is not None and at_20.mean == pytest.approx(0.5 + 0.2 * math.log10(2)), "L0 10 to 100 is one decade"
    assert b["frontier_at_l0_20"] is None


def test_an_l0_that_no_line_reaches_is_no_column() -> None:
    figures = frontiers([line("a", {10: 0.5}), line("b", {14: 0.6})], ["ev"]).figures["ev"]
    assert list(figures["a"]) == ["frontier_hypervolume", "frontier_points"]


def test_a_law_without_noise_is_found_and_predicts_what_lies_between() -> None:
    law = fitted_law("topk", points([64, 128, 512], [4, 16]))
    assert not isinstance(law, str) and law.law.name == "joint"
    assert law.figures["scaling_error"] < 1e-3
    widths, losses = law.curves["k=4"]
    assert (widths[0], widths[-1]) == (pytest.approx(64), pytest.approx(512))
    expected = points([64], [4])[0].run.loss
    assert losses[0] == pytest.approx(expected, rel=5e-3)


def test_widths_at_one_sparsity_give_the_law_in_compute() -> None:
    seeds = [
        point._replace(run=point.run._replace(k=8 + 0.1 * i)) for i in (0, 1) for point in points([64, 128, 512], [8])
    ]
    law = fitted_law("topk", seeds)  # six coders whose L0 differs a little are still of one sparsity
    assert not isinstance(law, str) and law.law.name == "compute"
    assert law.figures["scaling_floor"] == pytest.approx(0.1 / math.sqrt(8), rel=0.05)


@pytest.mark.parametrize(
    ("widths", "ks", "has"),
    [([64], [4, 8], "2 of 1 and 2"), ([64, 128], [8], "2 of 2 and 1"), ([9, 99], [4, 8], "4 of 2 and 2")],
)
def test_too_few_coders_are_told_in_a_line(widths: list[int], ks: list[int], has: str) -> None:
    said = fitted_law("topk", points(widths, ks))
    assert isinstance(said, str) and said.endswith(f"has {has}")


def test_a_family_by_hand() -> None:
    """Latent 0 splits in two, latent 1 has none, and the last of the wider coder is an orphan."""
    axes = torch.eye(4)
    wide = torch.stack([axes[0], axes[0] + 0.3 * axes[2], axes[3]])
    chain = family_chain("topk", ["narrow", "wide"], [axes[:2], wide])
    assert chain.figures[0]["family_split_share"] == 0.5
    assert chain.figures[0]["family_orphans"] == pytest.approx(1 / 3)
    assert chain.figures[0]["same_number_share"] == 0.5, "0 to 0, but 0 to 1"
    assert [branch.latent for branch in chain.largest] == [0]
    assert [child.latent for child in chain.largest[0].children] == [0, 1]


def test_a_track_by_hand() -> None:
    axes = torch.eye(4)
    layers = [axes[[0, 1]], axes[[1, 0]], axes[[2, 0]]]
    chain = track_chain("topk", ["a", "b", "c"], ["l0", "l1", "l2"], layers)
    assert chain.followed == [1.0, 1.0, 0.5]
    assert [track.latents for track in chain.strongest] == [[0, 1, 1]]
    assert chain.figures["track_whole_share"] == 0.5


def test_chains_that_kept_their_start_are_told() -> None:
    start = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 63))).float()
    chain = family_chain("topk", ["a", "b"], [start[:10], start + 0.1 * torch.randn(20, 63)])
    assert kept_start(chain.figures).startswith("Up to 100% of these links join latents of the same number.")
    assert kept_start([{"same_number_share": 0.01}, {"same_number_share": math.nan}]) == ""
    assert kept_start([]) == ""
    assert kept_start([{"same_number_share": None}, {"same_number_share": 0.5}]).startswith("Up to 50%")
