"""Rows without a gradient at beta1 = 0 are left as they are, and end where they would if every step visited them."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from unweave.kernels.adam_rows import adam_rows, radial_parts, reference

SHAPES = [(63, 7), (7, 1), (1, 100), (100, 63)]
NORMS = ["free", "unit", "at_most_one"]
LR, BETA2 = 0.063, 0.99


def _options(norm: str, step: int) -> dict[str, Any]:
    return {"lr": LR, "betas": (0.0, BETA2), "eps": 1e-8, "step": step, "norm": norm}


def _weights(shape: tuple[int, int], norm: str) -> Tensor:
    """Rows as a step leaves them."""
    weights = torch.randn(shape, dtype=torch.float64)
    if norm != "free":
        weights /= weights.norm(dim=1, keepdim=True).clamp(min=1e-12 if norm == "unit" else 1.0)
    return weights


def _gradient(shape: tuple[int, int]) -> Tensor:
    """A third of the rows has one, and some of them in a single number, which may be the last."""
    gradient = torch.randn(shape, dtype=torch.float64)
    gradient[torch.rand(shape[0]) < 2 / 3] = 0.0
    gradient[torch.rand(shape[0]) < 0.2, :-1] = 0.0
    return gradient


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_many_steps_end_where_those_end_that_visit_every_row(shape: tuple[int, int], norm: str, compiled: bool) -> None:
    step_rows = adam_rows if compiled else reference.adam_rows
    weights, square = _weights(shape, norm), torch.zeros(shape, dtype=torch.float64)
    missed = torch.zeros(shape[0], dtype=torch.int32)
    eager, eager_mean, eager_square = weights.clone(), torch.zeros_like(square), torch.zeros_like(square)
    scale = torch.tensor(0.37, dtype=torch.float64)
    for step in range(1, 200):
        gradient = _gradient(shape)
        along = radial_parts(gradient, eager)[1] if norm == "unit" else None
        before, counts = weights.clone(), missed.clone()
        step_rows(weights, gradient, None, square, scale, along, **_options(norm, step), missed=missed)
        reference.adam_rows(eager, gradient, eager_mean, eager_square, scale, along, **_options(norm, step))
        untouched = (gradient == 0).all(1)
        assert torch.equal(weights[untouched], before[untouched])
        assert torch.equal(missed, torch.where(untouched, counts + 1, 0))
        torch.testing.assert_close(weights, eager, rtol=1e-12, atol=1e-14)
        caught_up = square * BETA2 ** missed.double()[:, None]
        torch.testing.assert_close(caught_up, eager_square, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("shape", SHAPES)
def test_free_rows_step_as_they_do_in_the_adam_of_torch(shape: tuple[int, int]) -> None:
    weights, square = torch.randn(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    missed = torch.zeros(shape[0], dtype=torch.int32)
    theirs = weights.clone().requires_grad_()
    adam = torch.optim.Adam([theirs], lr=LR, betas=(0.0, BETA2), eps=1e-8)
    one = torch.tensor(1.0, dtype=torch.float64)
    for step in range(1, 100):
        gradient = _gradient(shape)
        theirs.grad = gradient.clone()
        adam.step()
        adam_rows(weights, gradient, None, square, one, None, **_options("free", step), missed=missed)
        torch.testing.assert_close(weights, theirs.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_that_missed_a_thousand_steps_is_worked_out_by_hand(dtype: torch.dtype) -> None:
    weights, square = torch.full((2, 3), 0.5, dtype=dtype), torch.full((2, 3), 4.0, dtype=dtype)
    missed = torch.zeros(2, dtype=torch.int32)
    gradient, one = torch.zeros(2, 3, dtype=dtype), torch.ones((), dtype=dtype)
    for step in range(1, 1001):
        adam_rows(weights, gradient, None, square, one, None, **_options("free", step), missed=missed)
    assert missed.tolist() == [1000, 1000] and (square == 4.0).all() and (weights == 0.5).all()
    gradient[1] = 0.1
    adam_rows(weights, gradient, None, square, one, None, **_options("free", 1001), missed=missed)
    v = 4.0 * 0.99**1001 + 0.01 * 0.1**2
    w = 0.5 - 0.063 * 0.1 / (math.sqrt(v / (1 - 0.99**1001)) + 1e-8)
    accuracy = 1e-12 if dtype == torch.float64 else 1e-6
    assert square[1].tolist() == pytest.approx([v] * 3, rel=10 * accuracy)
    assert weights[1].tolist() == pytest.approx([w] * 3, rel=accuracy)
    assert missed.tolist() == [1001, 0] and (weights[0] == 0.5).all()


@pytest.mark.parametrize("missed", [None, torch.int32])
def test_without_a_mean_a_step_is_that_with_one_that_forgets_at_once(missed: torch.dtype | None) -> None:
    """Where all rows have a gradient there is nothing else to see, in single precision too."""
    weights, square = torch.randn(63, 7), torch.rand(63, 7)
    plain, plain_square, mean = weights.clone(), square.clone(), torch.randn(63, 7)
    counts = None if missed is None else torch.zeros(63, dtype=missed)
    gradient, one = torch.randn(63, 7), torch.tensor(1.0)
    adam_rows(weights, gradient, None, square, one, None, **_options("unit", 7), missed=counts)
    adam_rows(plain, gradient, mean, plain_square, one, None, **_options("unit", 7))
    torch.testing.assert_close(weights, plain, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(square, plain_square, rtol=1e-6, atol=0)
    torch.testing.assert_close(mean, gradient, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nothing_changes_where_the_scale_is_not_finite(bad: float, compiled: bool) -> None:
    step_rows = adam_rows if compiled else reference.adam_rows
    state = _weights((63, 7), "unit"), torch.rand(63, 7, dtype=torch.float64), torch.arange(63, dtype=torch.int32)
    weights, square, missed = (tensor.clone() for tensor in state)
    scale = torch.tensor(bad, dtype=torch.float64)
    step_rows(weights, _gradient((63, 7)), None, square, scale, None, **_options("unit", 7), missed=missed)
    assert all(torch.equal(a, b) for a, b in zip((weights, square, missed), state, strict=True))


@pytest.mark.parametrize("tiny", [1e-30, -1e-44, math.nan])
def test_a_gradient_whose_square_is_zero_or_unknown_is_a_gradient(tiny: float) -> None:
    gradient, missed = torch.zeros(7, 63), torch.zeros(7, dtype=torch.int32)
    gradient[3, 40] = tiny
    weights, square = torch.ones(7, 63), torch.ones(7, 63)
    adam_rows(weights, gradient, None, square, torch.tensor(1.0), None, **_options("free", 7), missed=missed)
    assert missed.tolist() == [1, 1, 1, 0, 1, 1, 1]
