"""Planted families: parents that split, orphans, and latents that are followed through layers."""

import math

import pytest
import torch
import torch.nn.functional as F

from unweave.analysis.cofiring import CoFiring
from unweave.analysis.cosines import Pairs
from unweave.analysis.families import (
    DEFINITIONS,
    FamilyTree,
    links_by_cosine,
    parents_by_cosine,
    parents_by_firing,
    strongest_parents,
    tracks,
)
from unweave.errors import UserError
from unweave.kernels.selection import Above, select

PARENTS = [0, 0, 0, 1, 2, 2, -1, -1]
"""Of eight latents of the wider coder; the narrower one has four, of which the last has no child."""


def _split() -> tuple[torch.Tensor, torch.Tensor]:
    """Children near their parents in 64 dimensions, others in directions of their own."""
    narrow = torch.linalg.qr(torch.randn(64, 64)).Q[:6]
    near = torch.stack([narrow[parent if parent >= 0 else 4 + i % 2] for i, parent in enumerate(PARENTS)])
    return narrow[:4], F.normalize(near + 0.05 * torch.randn(8, 64), dim=1)


def _check(links: Pairs) -> None:
    tree = FamilyTree([links], [4, 8])
    assert tree.parents(1).tolist() == PARENTS
    assert tree.parents(0).tolist() == [-1] * 4
    figures = tree.figures(0)
    assert figures["family_children"] == pytest.approx((3 + 1 + 2) / 3)
    assert figures["family_split_share"] == 0.5
    assert figures["family_orphans"] == pytest.approx(0.25)
    assert figures["family_ended"] == 0.25


def test_children_are_found_by_their_directions() -> None:
    _check(parents_by_cosine(*_split()))


def test_children_are_found_by_what_they_do() -> None:
    """Each child fires on a part of its parent's rows, as strongly; the last parent's rows are nobody's."""
    rows = torch.arange(2000)
    narrow = torch.relu(torch.randn(2000, 4) + 1) * (torch.rand(2000, 4) < 0.15)
    wide = torch.zeros(2000, 8)
    n_children = torch.tensor([PARENTS.count(parent) for parent in range(4)])
    for child, parent in enumerate(PARENTS):
        if parent >= 0:
            place = PARENTS[:child].count(parent)
            wide[:, child] = 1.5 * narrow[:, parent] * (rows % n_children[parent] == place)
        else:
            wide[:, child] = torch.rand(2000) * (torch.rand(2000) < 0.1)
    counted = CoFiring(4, 8)
    counted.update(select(narrow, Above(0.0)), select(wide, Above(0.0)))
    links = parents_by_firing(counted.together())
    _check(links)
    torch.testing.assert_close(links.strength, torch.ones(6, dtype=torch.float64))


def test_a_latent_that_is_always_on_is_nobodys_parent() -> None:
    """Latent 0 is 1 on all rows; latents 1 and 2 of the wider coder fire on every third, one of them with latent 1."""
    rows = torch.arange(300)[:, None]
    narrow = torch.cat([torch.ones(300, 1), (rows % 3 == 0).float()], 1)
    wide = torch.cat([(rows % 3 == 0).float(), (rows % 3 == 1).float()], 1)
    counted = CoFiring(2, 2)
    counted.update(select(narrow, Above(0.0)), select(wide, Above(0.0)))
    together = counted.together()
    assert together.masked[together.first == 0].tolist() == pytest.approx([1.0, 1.0])
    links = parents_by_firing(together)
    assert links.first.tolist() == [1] and links.second.tolist() == [0]


def test_a_tree_holds_all_descendants_strongest_first() -> None:
    first = Pairs(torch.tensor([0, 0]), torch.tensor([0, 2]), torch.tensor([0.7, 0.9]))
    second = Pairs(torch.tensor([2, 2, 1]), torch.tensor([1, 3, 4]), torch.tensor([0.8, 0.6, 0.9]))
    branch = FamilyTree([first, second], [1, 3, 5]).branch(0, 0)
    assert branch.n_latents == 5
    assert [(child.latent, pytest.approx(child.strength)) for child in branch.children] == [(2, 0.9), (0, 0.7)]
    assert [child.latent for child in branch.children[0].children] == [1, 3]
    assert branch.children[1].children == [] and branch.children[0].children[0].level == 2


def test_a_child_has_its_strongest_parent_only() -> None:
    links = Pairs(torch.tensor([0, 1, 2, 0]), torch.tensor([5, 5, 5, 3]), torch.tensor([0.7, 0.9, 0.8, 0.1]))
    found = strongest_parents(links)
    assert found.second.tolist() == [3, 5] and found.first.tolist() == [0, 1]


def test_latents_are_followed_until_they_are_lost() -> None:
    """Three layers in new orders; a latent turns away in the second, and another in the third."""
    decoders = [torch.linalg.qr(torch.randn(30, 30)).Q[:7]]
    orders = [torch.randperm(7), torch.randperm(7)]
    for order in orders:
        decoders.append(decoders[-1][order].clone())
    places = [orders[0].argsort(), orders[1].argsort()[orders[0].argsort()]]
    fresh = torch.linalg.qr(torch.randn(30, 30)).Q
    decoders[1][places[0][4]] = fresh[0]
    decoders[2][places[1][4]] = fresh[0]
    decoders[2][places[1][6]] = fresh[1]
    found = tracks(links_by_cosine(decoders), 7, over=0.9)
    for latent in range(7):
        path = [latent, int(places[0][latent]), int(places[1][latent])]
        kept = 1 if latent == 4 else 2 if latent == 6 else 3
        assert found.ids[latent].tolist() == path[:kept] + [-1] * (3 - kept)
        assert found.strengths[latent, :kept].tolist() == pytest.approx([1.0] * kept, abs=1e-5)
        assert found.strengths[latent, kept:].isnan().all()
    figures = found.figures()
    assert figures["track_length"] == pytest.approx((5 * 3 + 1 + 2) / 7)
    assert figures["track_whole_share"] == pytest.approx(5 / 7)
    tree = FamilyTree([parents_by_cosine(*_split())], [4, 8])
    assert set(figures) | set(tree.figures(0)) == {definition.name for definition in DEFINITIONS}


def test_links_that_lack_some_latents_lose_them() -> None:
    links = [Pairs(torch.tensor([2]), torch.tensor([9]), torch.tensor([0.8]))] * 2
    assert tracks(links, 3).ids.tolist() == [[0, -1, -1], [1, -1, -1], [2, 9, -1]]


def test_nothing_in_common_is_a_family_of_none() -> None:
    none = Pairs(*(torch.zeros(0, dtype=kind) for kind in (torch.int64, torch.int64, torch.float32)))
    figures = FamilyTree([none], [3, 5]).figures(0)
    assert math.isnan(figures["family_children"])
    assert figures["family_orphans"] == figures["family_ended"] == 1.0


def test_what_is_no_chain_is_refused() -> None:
    links = parents_by_cosine(*_split())
    with pytest.raises(UserError, match="got 3 sizes and 1 links"):
        FamilyTree([links], [4, 8, 16])
    with pytest.raises(UserError, match="no latent 8 at level 1"):
        FamilyTree([links], [4, 8]).branch(1, 8)
    with pytest.raises(UserError, match="more than one parent"):
        FamilyTree([Pairs(torch.tensor([0, 1]), torch.tensor([2, 2]), torch.ones(2))], [4, 8])
    with pytest.raises(UserError, match="at least two coders"):
        tracks([], 5)
