"""Correlated firing: exact single probabilities, and joint ones of the bivariate normal distribution."""

import math

import pytest
import torch
from scipy.stats import multivariate_normal, norm
from torch import Tensor

from unweave.activations.copula import fire, random_loadings


def _fired(n: int, probabilities: Tensor, loadings: Tensor, seed: int = 7) -> Tensor:
    """The result as a matrix of 0 and 1."""
    rows, features = fire(n, probabilities, loadings, torch.Generator().manual_seed(seed))
    grid = torch.zeros(n, len(probabilities), dtype=torch.float64)
    grid[rows, features] += 1
    assert grid.max() <= 1
    return grid


def _sigma(p: Tensor | float, n: int) -> Tensor:
    """The standard error of a frequency."""
    p = torch.as_tensor(p, dtype=torch.float64)
    return (p * (1 - p) / n).sqrt()


@pytest.mark.parametrize("rank", [0, 1, 5])
def test_every_feature_fires_as_often_as_it_should_whatever_its_loadings(rank: int) -> None:
    n, probabilities = 50_000, torch.tensor([1.0, 0.9, 0.5, 0.3, 0.1, 0.03, 0.01, 0.001], dtype=torch.float64)
    loadings = random_loadings(8, rank, 0.4, torch.Generator().manual_seed(63))
    frequencies = _fired(n, probabilities, loadings).mean(0)
    assert ((frequencies - probabilities).abs() <= 5 * _sigma(probabilities, n)).all()


@pytest.mark.parametrize("shared", [0.8, 0.3, -0.8])
def test_two_even_features_fire_together_by_the_formula_of_sheppard(shared: float) -> None:
    """P(both) = 1/4 + arcsin(rho) / 2 pi for two features of probability 1/2."""
    n, loadings = 50_000, torch.tensor([[0.9], [shared / 0.9]], dtype=torch.float64)
    both = _fired(n, torch.tensor([0.5, 0.5], dtype=torch.float64), loadings).prod(1).mean().item()
    expected = 0.25 + math.asin(shared) / (2 * math.pi)
    assert abs(both - expected) < 5 * _sigma(expected, n)


def test_rare_features_fire_together_as_often_as_correlated_normals_exceed_their_quantiles() -> None:
    n, probabilities = 100_000, torch.tensor([0.3, 0.05, 0.1], dtype=torch.float64)
    loadings = torch.tensor([[0.7, 0.2], [0.5, -0.6], [-0.6, 0.3]], dtype=torch.float64)
    fired = _fired(n, probabilities, loadings)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        rho = float(loadings[i] @ loadings[j])
        quantiles = norm.ppf(probabilities[[i, j]].numpy())
        expected = float(multivariate_normal.cdf(quantiles, cov=[[1, rho], [rho, 1]]))
        assert abs((fired[:, i] * fired[:, j]).mean().item() - expected) < 5 * _sigma(expected, n)


def test_without_loadings_features_are_independent() -> None:
    n, probabilities = 50_000, torch.tensor([0.3, 0.2], dtype=torch.float64)
    both = _fired(n, probabilities, torch.zeros(2, 0, dtype=torch.float64)).prod(1).mean().item()
    assert abs(both - 0.06) < 5 * _sigma(0.06, n)


def test_wide_data_goes_through_blocks_that_share_the_hidden_causes() -> None:
    """Nine thousand rows of a thousand features are drawn in three blocks; features of any two fire alike."""
    n, probabilities = 9_001, torch.full((1_000,), 0.5, dtype=torch.float64)
    fired = _fired(n, probabilities, torch.full((1_000, 1), 0.9, dtype=torch.float64))
    assert ((fired.mean(0) - 0.5).abs() < 5 * _sigma(0.5, n)).all()
    expected = 0.25 + math.asin(0.81) / (2 * math.pi)
    for i, j in ((0, 999), (3, 500), (500, 980)):
        assert abs((fired[:, i] * fired[:, j]).mean().item() - expected) < 5 * _sigma(expected, n)


def test_loadings_share_as_much_variance_as_they_say_and_never_all_of_it() -> None:
    generator = torch.Generator().manual_seed(7)
    weak = random_loadings(10_000, 25, 0.1, generator).square().sum(1)
    assert weak.mean().item() == pytest.approx(0.25, abs=0.005)
    strong = random_loadings(63, 25, 1.0, generator).square().sum(1)
    assert strong.max().item() == pytest.approx(0.99)
    assert random_loadings(63, 0, 0.0, generator).shape == (63, 0)
