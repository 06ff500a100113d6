"""CKA, SVCCA and RSA on rows whose relation is known."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from unweave.analysis.matching import random_rotation
from unweave.analysis.similarity import DEFINITIONS, cka, rsa, similarity_figures, svcca
from unweave.errors import UserError


def _rows(n: int, width: int) -> torch.Tensor:
    return torch.randn(n, width) @ torch.randn(width, width)


def test_rotations_scales_and_shifts_change_nothing() -> None:
    X = _rows(100, 7)
    Y = 3 * X @ random_rotation(7, torch.Generator().manual_seed(1)).float() + 5
    for score in (cka, svcca, rsa):
        assert score(X, Y) == pytest.approx(1.0, abs=1e-4)


def test_cka_is_that_of_the_gram_matrices() -> None:
    """The other form of linear CKA: <K, L> / (|K| |L|) of the centred Gram matrices."""
    X, Y = _rows(30, 7).double(), _rows(30, 12).double()
    centring = torch.eye(30, dtype=torch.float64) - 1 / 30
    K, L = (centring @ (Z @ Z.T) @ centring for Z in (X, Y))
    assert cka(X, Y) == pytest.approx(((K * L).sum() / (K.norm() * L.norm())).item())


def test_rsa_is_spearmans_correlation_of_distances() -> None:
    X, Y = _rows(20, 3), _rows(20, 9)
    pairs = [(i, j) for i in range(20) for j in range(i + 1, 20)]
    distances = [[float((Z[i] - Z[j]).norm()) for i, j in pairs] for Z in (X, Y)]
    assert rsa(X, Y) == pytest.approx(float(np.asarray(spearmanr(*distances))[0]), abs=1e-6)


def test_svcca_is_the_mean_of_canonical_correlations_worked_by_hand() -> None:
    """Orthonormal centred columns; the second space shares one of two directions and has the other at 60 degrees."""
    basis = torch.randn(50, 3, dtype=torch.float64)
    basis = torch.linalg.qr(basis - basis.mean(0)).Q
    turned = 0.5 * basis[:, 1] + math.sqrt(0.75) * basis[:, 2]
    assert svcca(basis[:, :2], torch.stack([basis[:, 0], turned], 1)) == pytest.approx((1 + 0.5) / 2)


def test_related_rows_are_above_chance_and_unrelated_ones_are_not() -> None:
    X = _rows(150, 8)
    Y = X @ torch.randn(8, 20) + 0.3 * torch.randn(150, 20)
    related, unrelated = similarity_figures(X, Y, draws=19), similarity_figures(X, _rows(150, 20), draws=19)
    assert set(related) == {definition.name for definition in DEFINITIONS}
    for name in ("cka", "svcca", "rsa"):
        assert related[f"{name}_p"] == pytest.approx(1 / 20) and related[name] > 2 * related[f"{name}_shuffled"]
        assert unrelated[f"{name}_p"] > 0.05


def test_rows_that_are_not_paired_are_refused() -> None:
    with pytest.raises(UserError, match="got 5 and 6 rows"):
        similarity_figures(torch.randn(5, 3), torch.randn(6, 3))
    with pytest.raises(UserError, match="at least 3 pairs"):
        cka(torch.randn(2, 3), torch.randn(2, 3))
    with pytest.raises(UserError, match="at least 1 draw"):
        similarity_figures(torch.randn(5, 3), torch.randn(5, 3), draws=0)
