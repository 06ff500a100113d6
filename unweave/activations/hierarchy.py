"""A forest of features: a child fires only where its parent does, and still as often as it should.

Features are numbered breadth first: the roots of all trees, their children, their grandchildren; those after the last
node have neither parent nor child. A child is drawn where its parent fires, with P(child) / P(parent), so that it fires
with P(child) in all; it can fire no more often than its parent. Of exclusive siblings at most one fires, chosen by one
uniform number; together they can fire no more often than their parent, and are made rarer in proportion if they would.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Forest:
    """Equal trees; one of depth 0, or without roots, is a set of features without parents."""

    n_roots: int
    branching: int
    """Children of every node that is not a leaf."""
    depth: int
    """Levels below the roots."""
    exclusive: bool
    """Whether at most one child of a node fires."""

    @property
    def n_nodes(self) -> int:
        return sum(self._sizes)

    @property
    def n_inner(self) -> int:
        """Number of nodes that have children; theirs are the first ids."""
        return sum(self._sizes[:-1])

    @property
    def levels(self) -> Iterator[tuple[int, int]]:
        """First id, and the id after the last, of every level below the roots."""
        start = self.n_roots
        for size in self._sizes[1:]:
            yield start, start + size
            start += size

    @property
    def _sizes(self) -> list[int]:
        return [self.n_roots * self.branching**level for level in range(self.depth + 1)]

    def parents(self, n_features: int) -> Int[Tensor, " F"]:
        """The parent of each feature, -1 where there is none."""
        parents_F = torch.full((n_features,), -1)
        children = torch.arange(self.n_roots, self.n_nodes)
        parents_F[children] = (children - self.n_roots) // max(1, self.branching)
        return parents_F


def given_parent(wanted_F: Float[Tensor, " F"], forest: Forest) -> tuple[Float[Tensor, " F"], Float[Tensor, " F"]]:
    """Probability of each feature where its parent fires, and how often it then fires in all: as wanted if possible."""
    given_F, marginal_F = wanted_F.clone(), wanted_F.clone()
    parents_F = forest.parents(len(wanted_F))
    for start, end in forest.levels:
        above = marginal_F[parents_F[start:end]]
        siblings = (wanted_F[start:end] / above).clamp(max=1).view(-1, forest.branching)
        if forest.exclusive:
            siblings = siblings / siblings.sum(1, keepdim=True).clamp(min=1)
        given_F[start:end] = siblings.flatten()
        marginal_F[start:end] = given_F[start:end] * above
    return given_F, marginal_F


def fire_below(
    rows: Int[Tensor, " E"],
    features: Int[Tensor, " E"],
    given_F: Float[Tensor, " F"],
    forest: Forest,
    generator: torch.Generator,
) -> tuple[Int[Tensor, " E2"], Int[Tensor, " E2"]]:
    """What fires below the features that fire, together with those; the cost is that of the active entries."""
    found_rows, found_features = [rows], [features]
    for _ in range(forest.depth):
        is_inner = features < forest.n_inner
        rows, features = rows[is_inner], features[is_inner]
        first = forest.n_roots + features * forest.branching
        children = first[:, None] + torch.arange(forest.branching, device=features.device)
        fires = _siblings_fire(given_F[children], forest.exclusive, generator)
        rows, features = rows[:, None].expand_as(children)[fires], children[fires]
        found_rows.append(rows)
        found_features.append(features)
    return torch.cat(found_rows), torch.cat(found_features)


def _siblings_fire(
    given: Float[Tensor, "E siblings"], exclusive: bool, generator: torch.Generator
) -> Bool[Tensor, "E siblings"]:
    if not exclusive:
        return torch.rand(given.shape, generator=generator, device=given.device) < given
    upper = given.cumsum(1)
    draw = torch.rand(given.shape[0], 1, generator=generator, device=given.device)
    return (draw < upper) & (draw >= F.pad(upper[:, :-1], (1, 0)))
