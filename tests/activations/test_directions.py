"""Directions of features: unit length, and as far apart as the width allows."""

import pytest
import torch
from torch import Tensor

from unweave.activations.directions import spread_out, unit_directions


def _directions(n: int, d_model: int, turns: int) -> Tensor:
    return spread_out(unit_directions(n, d_model, torch.Generator().manual_seed(7)), turns)


@pytest.mark.parametrize(("n", "d_model", "turns"), [(1, 7, 0), (63, 7, 0), (7, 63, 3), (7, 7, 3), (100, 7, 10)])
def test_directions_have_unit_length(n: int, d_model: int, turns: int) -> None:
    directions = _directions(n, d_model, turns)
    assert directions.shape == (n, d_model)
    assert torch.allclose(directions.norm(dim=1), torch.ones(n, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize(("n", "d_model"), [(7, 63), (7, 7)])
def test_no_more_directions_than_dimensions_become_orthogonal_in_one_turn(n: int, d_model: int) -> None:
    directions = _directions(n, d_model, 1)
    assert torch.allclose(directions @ directions.T, torch.eye(n, dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize(("n", "d_model"), [(100, 7), (63, 13), (17, 13)])
def test_more_directions_reach_the_welch_bound_on_the_sum_of_squared_products(n: int, d_model: int) -> None:
    bound = n**2 / d_model
    at_random = (_directions(n, d_model, 0) @ _directions(n, d_model, 0).T).square().sum().item()
    spread = (_directions(n, d_model, 10) @ _directions(n, d_model, 10).T).square().sum().item()
    assert bound <= spread < bound * 1.001 < at_random


def test_three_directions_of_a_plane_end_at_sixty_degrees_up_to_sign() -> None:
    """The only tight frame of three unit vectors in the plane, up to signs and a rotation."""
    directions = _directions(3, 2, 60)
    cosines = (directions @ directions.T).abs()
    expected = torch.full((3, 3), 0.5, dtype=torch.float64).fill_diagonal_(1.0)
    assert torch.allclose(cosines, expected, atol=1e-6)


def test_without_a_turn_they_are_spread_evenly_over_the_sphere() -> None:
    """Mean 0 and covariance I / D; one squared cosine has a mean of 1 / D."""
    directions = _directions(10_000, 7, 0)
    assert directions.mean(0).abs().max() < 0.02
    assert torch.allclose(directions.T @ directions / 10_000, torch.eye(7, dtype=torch.float64) / 7, atol=0.01)
