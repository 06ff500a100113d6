"""Cosines block by block against plain loops, and the largest of random ones against draws."""

import math

import pytest
import torch

from unweave.analysis import cosines
from unweave.analysis.cosines import all_cosines, nearest, paired, pairs_over, random_nearest
from unweave.errors import UserError


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows at a time, so that there are several blocks and a last one that is not full."""
    monkeypatch.setattr(cosines, "CELLS", 100)


def _by_hand(W: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    rows = [[float(w @ o) / (float(w.norm() * o.norm()) or 1.0) for o in other] for w in W]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("signed", [True, False])
def test_the_nearest_are_those_of_the_whole_matrix(signed: bool) -> None:
    W, other = torch.randn(63, 7, dtype=torch.float64), torch.randn(30, 7, dtype=torch.float64)
    plain = _by_hand(W, other)
    near = nearest(W, other, n=3, signed=signed)
    ranked = plain if signed else plain.abs()
    assert torch.equal(near.ids, ranked.argsort(1, descending=True)[:, :3])
    torch.testing.assert_close(near.cosines, plain.gather(1, near.ids))
    torch.testing.assert_close(all_cosines(W, other), plain)


def test_alone_a_direction_is_not_its_own_neighbour() -> None:
    W = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    near = nearest(W)
    assert near.ids[:2, 0].tolist() == [1, 0]
    torch.testing.assert_close(near.cosines[:, 0], torch.tensor([1.0, 1.0, 0.0, 0.0]))
    assert nearest(torch.randn(63, 5), n=4).ids.shape == (63, 4)


def test_pairs_over_a_threshold_come_in_order() -> None:
    W, other = torch.randn(63, 3), torch.randn(40, 3)
    plain = _by_hand(W.double(), other.double())
    pairs = pairs_over(W, other, 0.8)
    assert torch.equal(torch.stack([pairs.first, pairs.second], 1), (plain > 0.8).nonzero())
    torch.testing.assert_close(pairs.strength.double(), plain[pairs.first, pairs.second])


def test_directions_of_length_zero_have_no_neighbours() -> None:
    assert nearest(torch.zeros(2, 3), torch.randn(4, 3)).cosines.tolist() == [[0.0], [0.0]]
    torch.testing.assert_close(
        paired(torch.eye(2), torch.tensor([[2.0, 0.0], [1.0, 1.0]])), torch.tensor([1, 0.5**0.5])
    )


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(("n", "width"), [(63, 7), (5, 30), (100, 2), (3, 1)])
def test_the_largest_cosine_of_random_directions_is_the_mean_over_draws(n: int, width: int, signed: bool) -> None:
    cosine = _many(20_000, n, width)
    drawn = (cosine if signed else cosine.abs()).amax(1)
    error = drawn.std().item() / math.sqrt(len(drawn))
    assert random_nearest(n, width, signed=signed) == pytest.approx(drawn.mean().item(), abs=4 * error + 1e-9)


def _many(n_draws: int, n: int, width: int) -> torch.Tensor:
    """Cosines of the first axis with random directions: their first coordinate."""
    normal = torch.randn(n_draws * n, width, dtype=torch.float64)
    return (normal[:, 0] / normal.norm(dim=1)).view(n_draws, n)


def test_the_rule_of_thumb_is_near_for_many_directions() -> None:
    assert random_nearest(16384, 768) == pytest.approx(math.sqrt(2 * math.log(16384) / 768), rel=0.1)


def test_directions_without_a_cosine_are_refused() -> None:
    with pytest.raises(UserError, match="of width 3 and 4 have no cosine"):
        nearest(torch.randn(2, 3), torch.randn(2, 4))
    with pytest.raises(UserError, match="at least one row"):
        pairs_over(torch.randn(0, 3), torch.randn(2, 3), 0.5)
