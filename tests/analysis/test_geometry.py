"""Geometry of decoders that are known."""

import math

import pytest
import torch

from unweave.analysis.geometry import (
    DEFINITIONS,
    alignment,
    alignment_figures,
    effective_rank,
    geometry,
    participation_ratios,
)
from unweave.errors import UserError


def test_two_copies_of_an_orthonormal_basis_have_a_near_copy_each() -> None:
    basis = torch.linalg.qr(torch.randn(7, 7)).Q
    found = geometry(torch.cat([basis, 3 * basis]), torch.cat([basis, -basis]))
    assert found.neighbours.tolist() == [*range(7, 14), *range(7)]
    assert found.figures["neighbour_cosine"] == pytest.approx(1.0, abs=1e-6)
    assert found.figures["neighbours_over_0.9"] == found.figures["neighbours_over_0.7"] == 1.0
    assert found.figures["encoder_decoder_cosine"] == pytest.approx(0.0, abs=1e-6)
    assert found.encoder_decoder is not None
    torch.testing.assert_close(found.encoder_decoder, torch.tensor([1.0] * 7 + [-1.0] * 7))
    assert found.figures["effective_rank"] == pytest.approx(7.0, rel=1e-5)


def test_shares_over_a_cosine_count_latents() -> None:
    """Angles of 0, 30, 90 and 180 degrees: the first two have 0.87, the third 0.5, the last 0."""
    angles = torch.tensor([0.0, 30.0, 90.0, 180.0]).deg2rad()
    found = geometry(torch.stack([angles.cos(), angles.sin()], 1))
    torch.testing.assert_close(found.neighbour_cosines, torch.tensor([0.75**0.5, 0.75**0.5, 0.5, 0.0]))
    assert found.figures["neighbours_over_0.7"] == 0.5
    assert found.figures["neighbours_over_0.9"] == 0.0
    assert math.isnan(found.figures["encoder_decoder_cosine"])
    edges, counts = found.neighbour_histogram()
    assert len(edges) == 41 and counts.sum() == 4
    assert counts[((edges[:-1] <= 0.86) & (edges[1:] > 0.86)).nonzero()] == 2


def test_random_directions_are_as_the_references_say() -> None:
    W = torch.randn(1500, 63)
    figures = geometry(W, W).figures
    aligned = alignment_figures(W, unembedding_VD=W[:7], embedding_VD=W[:7], neurons_ND=W[:11])
    assert set(figures | aligned) == {definition.name for definition in DEFINITIONS}
    assert figures["neighbour_cosine"] == pytest.approx(figures["neighbour_cosine_of_random"], rel=0.02)
    assert figures["participation_ratio"] == pytest.approx(figures["participation_ratio_of_random"], rel=0.05)
    assert figures["decoder_kurtosis"] == pytest.approx(figures["decoder_kurtosis_of_random"], rel=0.02)
    assert figures["effective_rank"] == pytest.approx(figures["effective_rank_of_random"], rel=0.01)
    assert figures["encoder_decoder_cosine"] == pytest.approx(1.0)


def test_a_row_is_spread_over_as_many_neurons_as_have_it() -> None:
    W = torch.tensor([[1.0, 0.0, 0.0, 0.0], [2.0, -2.0, 0.0, 0.0], [1.0, 1.0, -1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    ratios = participation_ratios(W)
    assert ratios[:3].tolist() == pytest.approx([1.0, 2.0, 4.0])
    assert ratios[3].isnan()
    assert geometry(W).figures["decoder_kurtosis"] == pytest.approx((4 + 2 + 1) / 3)


def test_the_effective_rank_is_that_of_the_entropy_of_singular_values() -> None:
    """Four rows along one axis and one along another: singular values 2 and 1."""
    W = torch.tensor([[1.0, 0.0, 0.0]] * 4 + [[0.0, 5.0, 0.0]])
    entropy = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert effective_rank(W) == pytest.approx(math.exp(entropy))
    assert effective_rank(W.T) == pytest.approx(effective_rank(W.T.contiguous()))


def test_alignment_is_with_the_nearest_token_whatever_its_sign() -> None:
    tokens = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    found = alignment(torch.tensor([[0.0, -3.0], [4.0, 3.0]]), tokens)
    assert found.ids.tolist() == [1, 0]
    torch.testing.assert_close(found.cosines, torch.tensor([-1.0, 0.8]))
    figures = alignment_figures(torch.tensor([[0.0, -3.0], [4.0, 3.0]]), unembedding_VD=tokens)
    assert figures["unembedding_alignment"] == pytest.approx(0.9)
    neurons = alignment_figures(torch.tensor([[0.0, -3.0], [4.0, 3.0]]), neurons_ND=tokens[:1])
    assert neurons["neuron_alignment"] == pytest.approx(0.4), "cosines of 0 and 0.8 with the one neuron"
    assert neurons["neuron_alignment_of_random"] == pytest.approx(2 / math.pi), "the mean of |cos| over a circle"
    # the smaller of two angles drawn from 0 to a = 90 degrees has a mean cosine of 2 (1 - cos a) / a^2
    assert figures["alignment_of_random"] == pytest.approx(8 / math.pi**2)


def test_what_has_no_geometry_is_refused() -> None:
    with pytest.raises(UserError, match=r"at least 2 latents, got decoder rows \[1, 5\]"):
        geometry(torch.randn(1, 5))
    with pytest.raises(UserError, match=r"one shape, got \[4, 3\] and \[4, 5\]"):
        geometry(torch.randn(4, 5), torch.randn(4, 3))
    with pytest.raises(UserError, match="got none"):
        alignment_figures(torch.randn(4, 5))
    with pytest.raises(UserError, match="width 5 and 6"):
        alignment(torch.randn(4, 5), torch.randn(9, 6))
