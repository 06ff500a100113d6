"""Sums of pairs that fire together against a plain dense account."""

import math
from collections.abc import Callable

import pytest
import torch

from unweave.analysis import cofiring
from unweave.analysis.cofiring import CoFiring, cofiring_figures, graph, shuffled_rows
from unweave.errors import UserError
from unweave.types import Codes

MakeCodes = Callable[..., Codes]


def _dense(grid: torch.Tensor) -> Codes:
    rows, latents = grid.nonzero(as_tuple=True)
    offsets = torch.zeros(len(grid) + 1, dtype=torch.int64)
    offsets[1:] = (grid != 0).sum(1).cumsum(0)
    return Codes(grid[rows, latents], latents, offsets, grid.shape[1])


@pytest.mark.parametrize("worth", [1, 2**20])
def test_pairs_are_those_of_a_plain_dense_account(
    make_codes: MakeCodes, monkeypatch: pytest.MonkeyPatch, worth: int
) -> None:
    monkeypatch.setattr(cofiring, "_WORTH_A_PRODUCT", worth)
    batches = [(make_codes(n, 30, 0.2), make_codes(n, 17, 0.1)) for n in (63, 7, 100)]
    counted = CoFiring(30, 17)
    for first, second in batches:
        counted.update(first, second)
    together = counted.together()
    a, b = (torch.cat([pair[side].dense() for pair in batches]) for side in (0, 1))
    n = len(a)
    both = (a != 0).double().T @ (b != 0).double()
    assert torch.equal(torch.stack([together.first, together.second], 1), both.nonzero())
    for i, j, *found in zip(*(part.tolist() for part in together), strict=True):
        on = (a[:, i] != 0) & (b[:, j] != 0)
        n_a, n_b, n_both = (a[:, i] != 0).sum().item(), (b[:, j] != 0).sum().item(), on.sum().item()
        where_b = a[:, i] * (b[:, j] != 0)
        expected = [
            n_both,
            n_both / (n_a + n_b - n_both),
            math.log(n_both * n / (n_a * n_b)),
            torch.corrcoef(torch.stack([a[:, i], b[:, j]]))[0, 1].item(),
            n_both / n_b,
            (a[:, i] @ b[:, j]).item() / (where_b.norm() * b[:, j].norm()).item(),
        ]
        assert found == pytest.approx(expected)
    assert len(together.first) > 100


def test_parts_that_are_merged_are_the_whole(make_codes: MakeCodes) -> None:
    batches = [(make_codes(40, 9, 0.3), make_codes(40, 12, 0.3)) for _ in range(3)]
    whole, part, rest = CoFiring(9, 12), CoFiring(9, 12), CoFiring(9, 12)
    for counted, some in ((whole, batches), (part, batches[:1]), (rest, batches[1:])):
        for first, second in some:
            counted.update(first, second)
    part.merge(rest)
    for one, other in zip(whole.together(), part.together(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_range_of_latents_has_the_pairs_of_the_whole(make_codes: MakeCodes) -> None:
    first, second = make_codes(100, 20, 0.3), make_codes(100, 9, 0.3)
    whole, part = CoFiring(20, 9), CoFiring(20, 9)
    whole.update(first, second)
    part.update(first.where(first.latent_ids < 7), second)
    expected, found = whole.together(), part.together()
    chosen = expected.first < 7
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one[chosen], other)


def test_figures_of_one_coder_are_worked_by_hand() -> None:
    """Latents 0 and 1 fire on rows 0-7 and 0-5: Jaccard 6 / 8. Latent 2 is with 0 on one row. 3 is silent, 4 alone."""
    grid = torch.zeros(10, 5)
    grid[:8, 0] = grid[:6, 1] = 1.0
    grid[7:9, 2] = grid[9, 4] = 2.0
    counted = CoFiring(5, 5)
    counted.update(_dense(grid), _dense(grid))
    figures = cofiring_figures(counted)
    assert figures["co_firing_connectivity"] == pytest.approx(2 / 10)
    assert figures["co_firing_jaccard"] == pytest.approx((0.75 + 0.75 + 0 + 0) / 4)
    assert figures["redundant_latents"] == 0.5
    assert set(figures) == {definition.name for definition in cofiring.DEFINITIONS}
    edges = graph(counted.together(), keep=1)
    assert list(zip(*(part.tolist() for part in edges), strict=True)) == [
        (0, 1, pytest.approx(0.75)),
        (1, 0, pytest.approx(0.75)),
        (2, 0, pytest.approx(1 / 9)),
    ]
    assert len(counted.together(min_count=6).other_latents().first) == 2


def test_a_graph_keeps_the_strongest_in_order(make_codes: MakeCodes) -> None:
    codes = make_codes(200, 20, 0.4)
    counted = CoFiring(20, 20)
    counted.update(codes, codes)
    edges = graph(counted.together(), by="pmi", keep=4)
    pairs = counted.together().other_latents()
    for latent in range(20):
        mine = pairs.pmi[pairs.first == latent].sort(descending=True).values[:4]
        torch.testing.assert_close(edges.strength[edges.first == latent], mine)
    with pytest.raises(UserError, match="one of jaccard, pmi"):
        graph(counted.together(), by="cosine")


def test_shuffled_rows_are_the_same_rows_in_another_order(make_codes: MakeCodes) -> None:
    codes = make_codes(63, 20, 0.2)
    shuffled = shuffled_rows(codes, torch.Generator().manual_seed(1))
    order = torch.randperm(63, generator=torch.Generator().manual_seed(1))
    assert torch.equal(shuffled.dense(), codes.dense()[order])
    assert not torch.equal(shuffled.dense(), codes.dense())


def test_explicit_zeros_are_no_entries() -> None:
    codes = Codes(torch.tensor([1.0, 0.0]), torch.tensor([0, 1]), torch.tensor([0, 2]), 2)
    counted = CoFiring(2, 2)
    counted.update(codes, codes)
    assert counted.together().first.tolist() == counted.together().second.tolist() == [0]


def test_codes_of_other_rows_are_refused(make_codes: MakeCodes) -> None:
    counted = CoFiring(5, 6)
    with pytest.raises(UserError, match="5 and 6 latents of 7 and 8 rows"):
        counted.update(make_codes(7, 5), make_codes(8, 6))
    with pytest.raises(UserError, match="fired together yet"):
        counted.together()
    with pytest.raises(UserError, match="of one coder, got two with 5 and 6"):
        cofiring_figures(counted)
