"""Rows without a gradient at beta1 = 0 on the path for GPUs against the definition."""

from typing import Any

import pytest
import torch

from unweave.kernels.adam_rows import adam_rows, gpu, reference


def _options(norm: str, step: int, beta2: float = 0.99) -> dict[str, Any]:
    return {"lr": 0.063, "betas": (0.0, beta2), "eps": 1e-8, "step": step, "norm": norm}


@pytest.mark.parametrize("beta2", [0.99, 0.0])
@pytest.mark.parametrize("longest", [8192, 4])
@pytest.mark.parametrize("norm", ["free", "unit", "at_most_one"])
@pytest.mark.parametrize("shape", [(9, 7), (3, 1), (3, 1500)])
def test_steps_are_those_of_the_definition(
    shape: tuple[int, int], norm: str, longest: int, beta2: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where rows are too long for a program to hold; rows without gradient keep every bit."""
    monkeypatch.setattr(gpu, "LONGEST", longest)
    weights, square = torch.randn(shape, dtype=torch.float64) / 3, torch.rand(shape, dtype=torch.float64)
    missed = torch.arange(shape[0], dtype=torch.int32)
    plain = [tensor.clone() for tensor in (weights, square, missed)]
    scale, along = torch.tensor(0.37, dtype=torch.float64), torch.randn(shape[0], dtype=torch.float64)
    for step in (1, 2, 3):
        gradient = torch.zeros(shape, dtype=torch.float64)
        gradient[step % shape[0] :: 2, -1:] = torch.randn(1, dtype=torch.float64)
        before, untouched = weights.clone(), (gradient == 0).all(1)
        adam_rows(weights, gradient, None, square, scale, along, **_options(norm, step, beta2), missed=missed)
        own_weights, own_square, own_missed = plain
        reference.adam_rows(
            own_weights, gradient, None, own_square, scale, along, **_options(norm, step, beta2), missed=own_missed
        )
        assert torch.equal(weights[untouched], before[untouched])
        assert torch.equal(missed, own_missed) and missed.dtype == torch.int32
        torch.testing.assert_close(weights, own_weights, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(square, own_square, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("norm", ["free", "unit"])
def test_every_row_is_visited_without_a_count(norm: str) -> None:
    weights, square = torch.randn(9, 7, dtype=torch.float64), torch.rand(9, 7, dtype=torch.float64)
    plain, plain_square = weights.clone(), square.clone()
    gradient, one = torch.zeros(9, 7, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    gradient[::2] = 1.0
    adam_rows(weights, gradient, None, square, one, None, **_options(norm, 7))
    reference.adam_rows(plain, gradient, None, plain_square, one, None, **_options(norm, 7))
    torch.testing.assert_close(weights, plain, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(square, plain_square, rtol=1e-6, atol=1e-7)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of the interpreter, about what is masked
@pytest.mark.parametrize("longest", [8192, 4])
@pytest.mark.parametrize("scale", [torch.nan, torch.inf])
def test_a_scale_that_is_not_finite_changes_nothing(
    scale: float, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "LONGEST", longest)
    state = torch.randn(3, 7), torch.rand(3, 7), torch.arange(3, dtype=torch.int32)
    weights, square, missed = (tensor.clone() for tensor in state)
    gradient = torch.zeros(3, 7)
    gradient[1] = torch.nan
    adam_rows(weights, gradient, None, square, torch.tensor(scale), None, **_options("unit", 7), missed=missed)
    assert all(torch.equal(a, b) for a, b in zip((weights, square, missed), state, strict=True))
