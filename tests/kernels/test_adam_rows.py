"""The compiled Adam step against its definition, against torch's Adam, and against projection written out."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from unweave.kernels.adam_rows import adam_rows, radial_parts, reference

SHAPES = [(63, 7), (7, 1), (1, 100), (100, 63)]


def _state(shape: tuple[int, int], dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Weights of many lengths and a step in the middle of training."""
    return {
        "weights": torch.randn(shape, dtype=dtype) * torch.rand(shape[0], 1, dtype=dtype),
        "gradient": torch.randn(shape, dtype=dtype),
        "mean": 0.1 * torch.randn(shape, dtype=dtype),
        "square": 0.1 * torch.rand(shape, dtype=dtype),
    }


def _options(norm: str, step: int = 7) -> dict[str, Any]:
    return {"lr": 0.063, "betas": (0.9, 0.99), "eps": 1e-8, "step": step, "norm": norm}


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


@pytest.mark.parametrize("is_tangent", [True, False])
@pytest.mark.parametrize("norm", ["free", "unit", "at_most_one"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_is_that_of_the_definition(shape: tuple[int, int], norm: str, is_tangent: bool) -> None:
    ours = _state(shape)
    plain = _copy(ours)
    scale = torch.tensor(0.37, dtype=torch.float64)
    along = torch.randn(shape[0], dtype=torch.float64) if is_tangent else None
    for step in range(1, 8):
        adam_rows(**ours, scale=scale, along=along, **_options(norm, step))
        reference.adam_rows(**plain, scale=scale, along=along, **_options(norm, step))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, plain[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_free_rows_step_as_they_do_in_the_adam_of_torch(shape: tuple[int, int]) -> None:
    weights = torch.randn(shape, dtype=torch.float64)
    ours, mean, square = weights.clone(), torch.zeros_like(weights), torch.zeros_like(weights)
    theirs = weights.clone().requires_grad_()
    adam = torch.optim.Adam([theirs], lr=0.063, betas=(0.9, 0.99), eps=1e-8)
    one = torch.tensor(1.0, dtype=torch.float64)
    for step in range(1, 20):
        gradient = torch.randn(shape, dtype=torch.float64)
        theirs.grad = gradient.clone()
        adam.step()
        adam_rows(ours, gradient, mean, square, one, None, **_options("free", step))
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-13)


def test_single_precision_is_single_precision_of_the_same_step() -> None:
    exact = _state((63, 7))
    ours = {name: tensor.float() for name, tensor in exact.items()}
    along = torch.randn(63)
    adam_rows(**ours, scale=torch.tensor(0.37), along=along, **_options("unit"))
    scale = torch.tensor(0.37, dtype=torch.float64)
    reference.adam_rows(**exact, scale=scale, along=along.double(), **_options("unit"))
    for name, tensor in ours.items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, exact[name].float(), rtol=1e-5, atol=1e-6)


def test_rows_end_at_the_length_that_is_asked_for() -> None:
    lengths = {}
    for norm in ("free", "unit", "at_most_one"):
        torch.manual_seed(7)
        state = _state((63, 7))
        state["weights"][0] = 0
        state["gradient"][0], state["mean"][0] = 0, 0
        adam_rows(**state, scale=torch.tensor(1.0, dtype=torch.float64), along=None, **_options(norm))
        lengths[norm] = state["weights"].norm(dim=1)
    free = lengths["free"]
    assert (free[1:] < 0.9).any() and (free > 1.1).any(), "the test needs rows on both sides"
    torch.testing.assert_close(lengths["unit"][1:], torch.ones(62, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(lengths["at_most_one"], free.clamp(max=1.0), rtol=1e-12, atol=1e-15)
    assert all(length[0] == 0 for length in lengths.values()), "a row of zeros has no direction and stays"


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nothing_changes_where_the_scale_is_not_finite(bad: float, compiled: bool) -> None:
    step = adam_rows if compiled else reference.adam_rows
    state = _state((63, 7))
    before = _copy(state)
    step(**state, scale=torch.tensor(bad, dtype=torch.float64), along=None, **_options("unit"))
    for name, tensor in state.items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("shape", SHAPES)
def test_radial_parts_are_the_coefficient_along_the_weights_and_the_square_of_what_remains(
    shape: tuple[int, int],
) -> None:
    gradient, weights = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    for parts in (radial_parts, reference.radial_parts):
        squares, along = parts(gradient, weights)
        for g, w, square, coefficient in zip(gradient, weights, squares, along, strict=True):
            tangent = g - (g @ w) / (w @ w) * w
            assert abs(tangent @ w) < 1e-12
            assert square.item() == pytest.approx((tangent @ tangent).item(), rel=1e-10, abs=1e-12)
            assert coefficient.item() == pytest.approx(((g @ w) / (w @ w)).item(), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gradient_along_the_weights_has_no_tangent_and_a_row_of_zeros_no_radius(dtype: torch.dtype) -> None:
    weights = torch.randn(7, 63, dtype=dtype)
    weights[3] = 0
    squares, along = radial_parts(2.5 * weights, weights)
    size = (2.5 * weights).square().sum(1)
    assert (squares >= 0).all() and (squares <= 1e-6 * size).all()
    torch.testing.assert_close(along[weights.abs().sum(1) > 0], torch.full((6,), 2.5, dtype=dtype))
    gradient = torch.randn(7, 63, dtype=dtype)
    squares, along = radial_parts(gradient, weights)
    assert along[3] == 0
    torch.testing.assert_close(squares[3], gradient[3] @ gradient[3])


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
def test_a_gradient_without_a_finite_square_is_seen_in_the_squares(bad: float, compiled: bool) -> None:
    """The optimizer's norm is made of them, and a step that it takes for finite would destroy the weights."""
    parts = radial_parts if compiled else reference.radial_parts
    gradient, weights = torch.randn(7, 63, dtype=torch.float64), torch.randn(7, 63, dtype=torch.float64)
    gradient[2, 5] = bad
    squares, _ = parts(gradient, weights)
    assert squares.isfinite().tolist() == [True, True, False, True, True, True, True]
