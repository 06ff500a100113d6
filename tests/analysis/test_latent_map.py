"""Projections and clusters of directions, against numpy's SVD and directions whose clusters are known."""

import numpy as np
import pytest
import torch

from unweave.analysis.latent_map import clusters, principal_plane, telling_words, usual_clusters
from unweave.errors import UserError


@pytest.mark.parametrize("shape", [(100, 7), (7, 63), (63, 63)])
def test_the_principal_plane_is_that_of_a_singular_value_decomposition(shape: tuple[int, int]) -> None:
    W = torch.randn(*shape, generator=torch.Generator().manual_seed(3)) * torch.linspace(0.2, 3, shape[1])
    units = W.numpy() / np.linalg.norm(W.numpy(), axis=1, keepdims=True)
    left, values, _ = np.linalg.svd(units - units.mean(0), full_matrices=False)
    plane = principal_plane(W)
    expected = left[:, :2] * values[:2]
    for axis in range(2):
        ours, theirs = plane.places_L2[:, axis].numpy(), expected[:, axis]
        assert abs(ours @ theirs) == pytest.approx(theirs @ theirs, rel=1e-4)
        np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=2e-6)
        assert np.abs(ours).max() == ours.max(), "the end that is further out is positive"
    np.testing.assert_allclose(plane.shares, values[:2] ** 2 / (values**2).sum(), rtol=1e-5)


def test_directions_that_are_all_one_lie_in_one_place() -> None:
    plane = principal_plane(torch.ones(7, 3))
    assert torch.equal(plane.places_L2, torch.zeros(7, 2)) and plane.shares == (0.0, 0.0)
    assert principal_plane(torch.ones(5, 1)).places_L2.shape == (5, 2)


def test_clusters_are_those_the_directions_were_drawn_around() -> None:
    generator = torch.Generator().manual_seed(7)
    centres = torch.linalg.qr(torch.randn(20, 3, generator=generator)).Q.T
    truth = torch.tensor([0] * 40 + [1] * 21 + [2] * 7)
    lengths = 0.1 + torch.rand(68, 1, generator=generator)
    W = lengths * (centres[truth] + 0.05 * torch.randn(68, 20, generator=generator))
    assert clusters(W, 3).tolist() == truth.tolist(), "the largest is the first"
    assert (clusters(W, 3, seed=1) == clusters(W, 3, seed=1)).all()


def test_there_are_no_more_clusters_than_directions() -> None:
    assert clusters(torch.eye(3)[[0, 1, 1, 0]], 7).max() == 1
    assert clusters(torch.zeros(5, 3), 4).tolist() == [0] * 5
    with pytest.raises(UserError, match="at least 1 cluster"):
        clusters(torch.eye(3), 0)


def test_words_of_a_cluster_are_those_it_has_oftener_than_all_do() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    words = [["the", "red"], ["the", "red"], ["the", "blue"], ["the", "knot"], ["the"]]
    # in the first: "red" 2 ln(2 / 1.2) = 1.02, "blue" ln(1 / 0.6) = 0.51, "the" 3 ln(3 / 3) = 0
    assert telling_words(labels, words) == [["red", "blue"], ["knot"]]
    assert telling_words(labels, words, most=1) == [["red"], ["knot"]]


def test_larger_coders_are_split_into_more_clusters() -> None:
    assert [usual_clusters(n) for n in (1, 63, 512, 100_000)] == [2, 3, 8, 12]
