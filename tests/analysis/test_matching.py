"""Matching of latents whose truth is planted: permuted, rotated and unrelated decoders."""

import math

import pytest
import torch
import torch.nn.functional as F

from unweave.analysis.cosines import Pairs, all_cosines, random_nearest
from unweave.analysis.matching import (
    DEFINITIONS,
    compare_coders,
    direction_figures,
    match,
    match_edges,
    mean_matched,
    mmcs,
    random_rotation,
    rotation_null,
    shared_pairs,
)
from unweave.coders import SparseCoder, Wiring, architecture
from unweave.errors import UserError
from unweave.metrics.ground_truth import mcc


def _coder(W_dec: torch.Tensor, W_enc: torch.Tensor) -> SparseCoder:
    cls = architecture("topk")
    coder = cls(cls.Config(n_latents=len(W_dec), k=3), Wiring.sae(W_dec.shape[1], "layers.1.resid_post"))
    with torch.no_grad():
        coder.W_dec.copy_(W_dec)
        assert isinstance(coder.W_enc, torch.Tensor)
        coder.W_enc.copy_(W_enc)
    return coder


@pytest.mark.parametrize("exact_up_to", [4096, 0], ids=["exact", "neighbours"])
def test_a_permutation_is_found_exactly(exact_up_to: int) -> None:
    W, order = torch.randn(300, 24), torch.randperm(300)
    sign = torch.where(torch.rand(300) < 0.5, -1.0, 1.0)
    matching = match(W, (sign[:, None] * W)[order] * 7, exact_up_to=exact_up_to)
    assert torch.equal(matching.first, torch.arange(300))
    assert torch.equal(order[matching.second], torch.arange(300))
    torch.testing.assert_close(matching.strength, sign)


@pytest.mark.parametrize(("n", "m"), [(200, 200), (63, 200), (200, 63)])
def test_the_sparse_matching_is_all_but_as_good_as_the_exact_one(n: int, m: int) -> None:
    W, other = torch.randn(n, 20), torch.randn(m, 20)
    exact, sparse = match(W, other), match(W, other, exact_up_to=0)
    assert mean_matched(W, other) == pytest.approx(mcc(W, other))
    for matching in (exact, sparse):
        assert len(matching.first) == len(matching.first.unique()) == len(matching.second.unique()) == min(n, m)
        torch.testing.assert_close(matching.strength, all_cosines(W, other)[matching.first, matching.second])
    best, found = (matching.strength.abs().sum().item() for matching in (exact, sparse))
    assert 0.999 * best < found <= best * (1 + 1e-6)


def test_what_the_neighbours_leave_over_is_matched_too() -> None:
    """All latents of one coder are near one another, so that few of the other's are anybody's neighbours."""
    W = torch.randn(1, 30) + 0.01 * torch.randn(150, 30)
    other = torch.randn(400, 30)
    matching = match(W, other, exact_up_to=0)
    assert len(matching.first) == len(matching.second.unique()) == 150


def test_edges_are_matched_for_the_largest_sum_and_some_have_nobody() -> None:
    """0-0 and 1-1 have 0.6 + 0.5, 0-1 alone has 0.9; 2 has no edge."""
    edges = Pairs(torch.tensor([1, 0, 0]), torch.tensor([1, 1, 0]), torch.tensor([0.5, 0.9, 0.6]))
    found = match_edges(edges, 3, 4)
    assert sorted(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(0, 0), (1, 1)]
    assert sorted(found.strength.tolist()) == pytest.approx([0.5, 0.6])


def test_mean_max_cosine_is_worked_by_hand_both_ways() -> None:
    """Two latents at 0 and 60 degrees, one at 0: forwards (1 + 0.5) / 2, backwards 1."""
    W = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)]])
    figures = direction_figures(W, torch.tensor([[-2.0, 0.0]]))
    assert figures["mmcs"] == pytest.approx(0.75)
    assert figures["mmcs_back"] == pytest.approx(1.0)
    # one random direction in the plane: the mean of |cos| is 2 / pi
    assert figures["mmcs_of_random"] == pytest.approx(2 / math.pi)


def test_two_seeds_of_random_directions_are_as_near_as_the_null_says() -> None:
    figures = direction_figures(torch.randn(400, 32), torch.randn(700, 32))
    assert figures["mmcs"] == pytest.approx(figures["mmcs_of_random"], rel=0.02)
    assert figures["mmcs_back"] == pytest.approx(figures["mmcs_back_of_random"], rel=0.02)
    assert figures["mmcs_of_random"] == random_nearest(700, 32)


def test_a_rotated_copy_is_no_better_than_chance_and_a_noisy_copy_is() -> None:
    W = torch.randn(80, 16)
    rotated = W @ random_rotation(16, torch.Generator().manual_seed(3)).float()
    noisy = F.normalize(W, dim=1)[torch.randperm(80)] + 0.1 * torch.randn(80, 16)
    for score in (mmcs, mean_matched):
        by_chance = rotation_null(W, rotated, score, score(W, rotated), draws=19)
        assert by_chance.p > 0.05 and by_chance.observed == pytest.approx(by_chance.mean, rel=0.1)
        real = rotation_null(W, noisy, score, score(W, noisy), draws=19)
        assert real.p == pytest.approx(1 / 20) and real.observed > 1.2 * real.mean


def test_a_rotation_keeps_angles() -> None:
    R = random_rotation(7, torch.Generator().manual_seed(0))
    torch.testing.assert_close(R @ R.T, torch.eye(7, dtype=torch.float64))


def test_shared_latents_are_alike_in_what_they_read_and_write() -> None:
    W = torch.eye(4)
    turned = F.normalize(torch.tensor([[1.0, 0.2, 0, 0], [0, 1.0, 0, 1.5], [0, 0, -1.0, 0], [0, 0, 0, 1.0]]), dim=1)
    read = torch.eye(4)[[0, 1, 2, 0]]
    compared = compare_coders(_coder(W, W), _coder(turned, read))
    assert compared.matching.second.tolist() == [0, 1, 2, 3]
    assert compared.is_shared is not None
    # the second is too far in the decoder, the third writes the opposite, the fourth reads something else
    assert compared.is_shared.tolist() == [True, False, False, False]
    assert compared.figures["shared_latents"] == 0.25
    assert math.isnan(compared.figures["mmcs_p"])
    assert set(compared.figures) == {definition.name for definition in DEFINITIONS}


def test_two_seeds_of_one_coder_share_what_they_should() -> None:
    W, order = F.normalize(torch.randn(63, 24), dim=1), torch.randperm(63)
    W_other = W[order].clone()
    W_other[:20] = F.normalize(torch.randn(20, 24), dim=1)
    compared = compare_coders(_coder(W, W), _coder(W_other, W_other), draws=9)
    assert compared.figures["shared_latents"] == pytest.approx(43 / 63, abs=2 / 63)
    assert compared.figures["mmcs_p"] == compared.figures["mcc_p"] == pytest.approx(0.1)


def test_a_coder_whose_latents_have_no_rows_to_read_with_shares_nothing_that_is_known() -> None:
    cls = architecture("kron")
    coder = cls(cls.Config(n_latents=64), Wiring.sae(8, "layers.1.resid_post"))
    compared = compare_coders(coder, _coder(torch.randn(30, 8), torch.randn(30, 8)))
    assert compared.is_shared is None and math.isnan(compared.figures["shared_latents"])


def test_coders_without_a_cosine_are_refused() -> None:
    with pytest.raises(UserError, match="of width 3 and 4"):
        match(torch.randn(5, 3), torch.randn(5, 4))
    with pytest.raises(UserError, match="at least 1 draw"):
        rotation_null(torch.randn(5, 3), torch.randn(5, 3), mmcs, 0.5, draws=0)
    with pytest.raises(UserError, match="of width 3 and 4"):
        shared_pairs(match(torch.eye(3), torch.eye(3)), torch.randn(5, 3), torch.randn(5, 4))
