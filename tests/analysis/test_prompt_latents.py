"""The latents of a text, worked by hand."""

import numpy as np
import pytest

from unweave.analysis.prompt_latents import Fired, Usual, lane, standing, strongest_share

FIRED = Fired(np.array([0, 1, 1, 3, 3]), np.array([4, 2, 4, 0, 4]), np.array([1.0, 3.0, 2.0, 5.0, -6.0]))
"""Latent 4 at places 0, 1 and, negative, 3; latent 2 at place 1; latent 0, which never fired before, at place 3."""
USUAL = Usual(np.array([0.0, 1.0, 4.0, 1.0, 8.0]), np.array([0.0, 0.5, 0.1, 0.5, 0.25]), 100)


def test_each_latent_stands_for_its_strongest_place() -> None:
    found = standing(FIRED, USUAL)
    assert found.latents.tolist() == [0, 2, 4]
    assert found.max.tolist() == [5.0, 3.0, 6.0] and found.sum.tolist() == [5.0, 3.0, 9.0]
    assert found.n_fires.tolist() == [1, 1, 3] and found.peaks.tolist() == [3, 1, 3]
    assert found.surprise.tolist() == pytest.approx([1 / 0.01, 0.75 / 0.1, 0.75 / 0.25])
    assert [found.latents[found.order(by)].tolist() for by in ("max", "sum", "surprise")] == [
        [4, 0, 2],
        [4, 0, 2],
        [0, 2, 4],
    ]


def test_each_place_has_its_latents_and_their_largest_share() -> None:
    assert strongest_share(FIRED, USUAL, 5).tolist() == [0.125, 0.75, 0, 1, 0]
    latents, values = FIRED.at(1)
    assert latents.tolist() == [2, 4] and values.tolist() == [3, 2] and len(FIRED.at(2)[0]) == 0
    assert FIRED.along(4, 5).tolist() == [1, 2, 0, -6, 0]


@pytest.mark.parametrize("n_bins", [2, 3, 5, 100])
def test_a_lane_keeps_the_largest_of_each_bin(n_bins: int) -> None:
    found = lane(FIRED.along(4, 5), n_bins)
    assert len(found) == min(n_bins, 5) and max(found) == 6
    if n_bins == 2:
        assert found == [2, 6]
    assert lane(np.zeros(0), n_bins) == []


def test_a_text_on_which_nothing_fires_has_no_latents() -> None:
    nothing = FIRED.where(FIRED.values > 100)
    assert len(standing(nothing, USUAL).latents) == 0 and not strongest_share(nothing, USUAL, 3).any()
