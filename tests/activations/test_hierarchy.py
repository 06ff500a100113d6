"""Forests: numbering and probabilities by hand, and what fires below what."""

import pytest
import torch
from torch import Tensor

from unweave.activations.hierarchy import Forest, fire_below, given_parent

PROBABILITIES = torch.tensor([0.4, 0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.02, 0.5], dtype=torch.float64)
"""Two roots with two children each and nothing below, and three features outside of the trees."""


def _drawn(n: int, given: Tensor, forest: Forest, roots: Tensor) -> Tensor:
    """What fires in ``n`` rows as 0 and 1, if the roots fire with these probabilities."""
    generator = torch.Generator().manual_seed(7)
    is_on = torch.rand(n, len(roots), generator=generator, dtype=torch.float64) < roots
    rows, features = fire_below(*is_on.nonzero(as_tuple=True), given.float(), forest, generator)
    grid = torch.zeros(n, len(given))
    grid.index_put_((rows, features), torch.ones(len(rows)), accumulate=True)
    assert grid.max() <= 1
    return grid.double()


def _close(frequency: Tensor, probability: Tensor, n: int) -> bool:
    return bool(((frequency - probability).abs() < 5 * (probability * (1 - probability) / n).sqrt() + 1e-12).all())


def test_features_are_numbered_breadth_first() -> None:
    forest = Forest(n_roots=2, branching=2, depth=2, exclusive=False)
    assert (forest.n_nodes, forest.n_inner, list(forest.levels)) == (14, 6, [(2, 6), (6, 14)])
    assert forest.parents(17).tolist() == [-1, -1, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, -1, -1, -1]


def test_a_forest_without_roots_has_no_nodes() -> None:
    forest = Forest(n_roots=0, branching=0, depth=0, exclusive=False)
    assert (forest.n_nodes, list(forest.levels), forest.parents(3).tolist()) == (0, [], [-1, -1, -1])
    given, marginal = given_parent(PROBABILITIES, forest)
    assert torch.equal(given, PROBABILITIES) and torch.equal(marginal, PROBABILITIES)


def test_children_are_drawn_by_their_share_of_the_parent() -> None:
    given, marginal = given_parent(PROBABILITIES, Forest(2, 2, 1, False))
    assert given.tolist() == pytest.approx([0.4, 0.3, 0.5, 0.375, 1 / 3, 1 / 3, 0.05, 0.02, 0.5])
    assert marginal.tolist() == pytest.approx(PROBABILITIES.tolist())


def test_grandchildren_are_compensated_for_one_level_only() -> None:
    """The child's own probability is that of firing at all, so its parent is not counted twice."""
    given, marginal = given_parent(torch.tensor([0.5, 0.2, 0.05], dtype=torch.float64), Forest(1, 1, 2, False))
    assert given.tolist() == pytest.approx([0.5, 0.4, 0.25])
    assert marginal.tolist() == pytest.approx([0.5, 0.2, 0.05])


def test_a_child_fires_no_more_often_than_its_parent() -> None:
    given, marginal = given_parent(torch.tensor([0.1, 0.3, 0.2], dtype=torch.float64), Forest(1, 1, 2, False))
    assert given.tolist() == pytest.approx([0.1, 1.0, 1.0])
    assert marginal.tolist() == pytest.approx([0.1, 0.1, 0.1])


def test_exclusive_siblings_keep_their_probabilities_as_long_as_they_fit_into_the_parent() -> None:
    given, marginal = given_parent(PROBABILITIES, Forest(2, 2, 1, True))
    assert given[2:6].tolist() == pytest.approx([0.5, 0.375, 1 / 3, 1 / 3])
    assert marginal.tolist() == pytest.approx(PROBABILITIES.tolist())


def test_exclusive_siblings_that_do_not_fit_are_made_rarer_in_proportion() -> None:
    """0.3 and 0.1 under a parent of 0.2: the first is cut to 0.2, and 1 + 1/2 is scaled to 2/3 + 1/3."""
    given, marginal = given_parent(torch.tensor([0.2, 0.3, 0.1], dtype=torch.float64), Forest(1, 2, 1, True))
    assert given.tolist() == pytest.approx([0.2, 2 / 3, 1 / 3])
    assert marginal.tolist() == pytest.approx([0.2, 2 / 15, 1 / 15])


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_child_fires_only_with_its_parent_and_as_often_as_it_should(exclusive: bool) -> None:
    n, forest = 50_000, Forest(2, 3, 2, exclusive)
    ranks = torch.arange(forest.n_nodes + 1, dtype=torch.float64)
    given, marginal = given_parent(0.4 / (1 + ranks), forest)
    fired = _drawn(n, given, forest, marginal[:2])
    parents = forest.parents(len(given))
    for child in range(2, forest.n_nodes):
        assert not (fired[:, child] * (1 - fired[:, parents[child]])).any()
    assert _close(fired[:, :-1].mean(0), marginal[:-1], n)
    assert not fired[:, -1].any()


def test_at_most_one_of_exclusive_siblings_fires() -> None:
    forest = Forest(2, 3, 2, True)
    given, marginal = given_parent(torch.full((26,), 0.3, dtype=torch.float64), forest)
    fired = _drawn(5_000, given, forest, marginal[:2])
    siblings = fired[:, 2:].view(5_000, -1, 3).sum(2)
    assert siblings.max() == 1
    parents_on = fired[:, :8] == 1
    assert (siblings[parents_on] == 1).all()  # their probabilities add up to that of the parent


def test_siblings_that_are_not_exclusive_are_independent_given_their_parent() -> None:
    n, forest = 50_000, Forest(1, 2, 1, False)
    given, marginal = given_parent(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), forest)
    fired = _drawn(n, given, forest, marginal[:1])
    assert _close((fired[:, 1] * fired[:, 2]).mean(), torch.tensor(0.5 * 0.6 * 0.4), n)
