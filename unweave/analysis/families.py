"""Families of latents: what one latent splits into as coders grow, and how far it can be followed through layers.

As a coder gets wider, a latent of a smaller one comes back as several, narrower ones (feature splitting, Bricken et al.
2023, "Towards Monosemanticity"; Chanin et al. 2024, arXiv 2409.14507). In a chain of coders of one site, each latent of
a wider coder has at most one parent in the next narrower one, the strongest over a threshold, by one of

    cosine    of their decoder rows
    masked    of their activations on the rows where the child is active (``cofiring.py``), which is 1 for a child that
              fires in proportion to its parent on a part of the parent's rows; as a latent that is nearly always on is
              like every other in this, the parent must also be active on the child's rows twice as often as by chance

The parents make the chain a forest. Through layers, a latent is followed to its best match in the next layer, by cosine
or by correlation, as long as the strength of the match is over a threshold (Balagansky et al. 2024, arXiv 2410.07656).
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.analysis.cofiring import FiredTogether
from unweave.analysis.cosines import Pairs, nearest
from unweave.errors import UserError
from unweave.metrics.base import Definition

DEFINITIONS = (
    Definition(
        "family_children",
        "Children of a latent",
        "Mean number of latents in the wider coder whose parent is a given latent, over latents that have any.",
        "1 where nothing splits, at most about the ratio of the widths",
    ),
    Definition(
        "family_split_share",
        "Latents that split",
        "Share of the narrower coder's latents with two children or more in the wider one.",
        "0.1 to 0.5 for twice the width",
    ),
    Definition(
        "family_orphans",
        "Latents without a parent",
        "Share of the wider coder's latents that have no parent in the narrower one, so that they may be novel.",
        "0.2 to 0.6 for twice the width",
    ),
    Definition(
        "family_ended",
        "Latents without children",
        "Share of the narrower coder's latents that have no child in the wider one.",
        "under 20 %",
    ),
    Definition(
        "track_length",
        "Layers of a track",
        "Mean number of coders, its own included, through which a latent of the first one can be followed.",
        "2 to 6 for coders of neighbouring layers",
    ),
    Definition(
        "track_whole_share",
        "Latents found in all layers",
        "Share of the first coder's latents that can be followed to the last one.",
        "falls with the number of layers",
    ),
)


class Branch(NamedTuple):
    """A latent with all that came of it."""

    level: int
    latent: int
    strength: float
    """Of the link to its parent; 1 at the top of the branch."""
    children: list["Branch"]

    @property
    def n_latents(self) -> int:
        return 1 + sum(child.n_latents for child in self.children)


class FamilyTree:
    """The forest of a chain of coders, narrowest first."""

    def __init__(self, links: Sequence[Pairs], sizes: Sequence[int]) -> None:
        """``links[i]`` joins parents of coder i to children in coder i + 1; ``sizes`` are the coders' latents."""
        if len(sizes) != len(links) + 1 or not links:
            raise UserError(
                f"a chain of n coders has n - 1 links and at least one, got {len(sizes)} sizes and {len(links)} links"
            )
        self.links, self.sizes = list(links), list(sizes)
        for link in self.links:
            if len(link.second.unique()) != len(link.second):
                raise UserError("a latent has more than one parent; choose the strongest with strongest_parents")

    def branch(self, level: int, latent: int) -> Branch:
        """A latent of one of the coders and all its descendants."""
        if not 0 <= level < len(self.sizes) or not 0 <= latent < self.sizes[level]:
            raise UserError(f"no latent {latent} at level {level}; coders have {self.sizes} latents")
        return self._branch(level, latent, 1.0)

    def parents(self, level: int) -> Int[Tensor, " L"]:
        """The parent of each latent of a coder, -1 where there is none."""
        parents = torch.full((self.sizes[level],), -1)
        if level:
            parents[self.links[level - 1].second] = self.links[level - 1].first
        return parents

    def figures(self, level: int) -> dict[str, float]:
        """What becomes of coder ``level`` in the next wider one."""
        link = self.links[level]
        counts = torch.bincount(link.first, minlength=self.sizes[level]).double()
        return {
            "family_children": counts[counts > 0].mean().item(),
            "family_split_share": (counts > 1).double().mean().item(),
            "family_orphans": 1.0 - len(link.second) / self.sizes[level + 1],
            "family_ended": (counts == 0).double().mean().item(),
        }

    def _branch(self, level: int, latent: int, strength: float) -> Branch:
        found: list[Branch] = []
        if level < len(self.links):
            link = self.links[level]
            for place in (link.first == latent).nonzero().flatten().tolist():
                found.append(self._branch(level + 1, int(link.second[place]), link.strength[place].item()))
        return Branch(level, latent, strength, sorted(found, key=lambda branch: -branch.strength))


class Tracks(NamedTuple):
    """Where each latent of a first coder is found in the coders of the following layers."""

    ids: Int[Tensor, "L S"]
    """-1 from where it is lost."""
    strengths: Float[Tensor, "L S"]
    """Of the link that led there; 1 at the start, NaN from where it is lost."""

    def figures(self) -> dict[str, float]:
        found = self.ids >= 0
        return {
            "track_length": found.double().sum(1).mean().item(),
            "track_whole_share": found[:, -1].double().mean().item(),
        }


def parents_by_cosine(narrow_LD: Float[Tensor, "L D"], wide_MD: Float[Tensor, "M _"], over: float = 0.6) -> Pairs:
    """The narrower coder's latent nearest to each of the wider one's, where their cosine is over a threshold."""
    near = nearest(wide_MD, narrow_LD)
    strength, parent = near.cosines[:, 0].cpu(), near.ids[:, 0].cpu()
    children = (strength > over).nonzero().flatten()
    return Pairs(parent[children], children, strength[children])


def parents_by_firing(
    together: FiredTogether, over: float = 0.6, by: str = "masked", times_chance: float = 2.0
) -> Pairs:
    """The same by what they do: ``together`` has the narrower coder first, then the wider one."""
    pairs = together.pairs(by)
    strong = (pairs.strength > over) & (together.pmi > math.log(times_chance))
    return strongest_parents(Pairs(*(part[strong] for part in pairs)))


def strongest_parents(links: Pairs) -> Pairs:
    """One link for each child, ordered by children."""
    order = links.strength.argsort(descending=True, stable=True)
    order = order[links.second[order].argsort(stable=True)]
    child = links.second[order]
    is_first = torch.ones(len(child), dtype=torch.bool)
    is_first[1:] = child[1:] != child[:-1]
    return Pairs(*(part[order[is_first]] for part in links))


def links_by_cosine(decoders: Sequence[Float[Tensor, "_ D"]]) -> list[Pairs]:
    """Each latent's nearest in the next layer's coder."""
    links: list[Pairs] = []
    for here, after in pairwise(decoders):
        near = nearest(here, after)
        links.append(Pairs(torch.arange(len(here)), near.ids[:, 0].cpu(), near.cosines[:, 0].cpu()))
    return links


def tracks(links: Sequence[Pairs], n_latents: int, over: float = 0.5) -> Tracks:
    """Follow each latent of the first coder along the links, as long as they are over a threshold.

    Each link has one latent of the next layer at most for one of this layer: ``links_by_cosine``, or
    ``correlation.best`` of the codes of both layers on the same tokens.
    """
    if not links:
        raise UserError("a track needs the links between at least two coders, got none")
    ids, strengths = [torch.arange(n_latents)], [torch.ones(n_latents, dtype=torch.float64)]
    for link in links:
        size = 1 + max(int(link.first.max()) if len(link.first) else -1, int(ids[-1].max()), 0)
        after, strength = torch.full((size,), -1), torch.full((size,), torch.nan, dtype=torch.float64)
        strong = link.strength > over
        after[link.first[strong]] = link.second[strong]
        strength[link.first[strong]] = link.strength[strong].double()
        here = ids[-1].clamp(min=0)
        ids.append(torch.where(ids[-1] >= 0, after[here], -1))
        strengths.append(torch.where(ids[-2] >= 0, strength[here], torch.nan))
    return Tracks(torch.stack(ids, 1), torch.stack(strengths, 1))
