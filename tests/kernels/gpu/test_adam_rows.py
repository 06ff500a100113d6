"""The Adam step on the path for GPUs against its definition."""

from typing import Any

import pytest
import torch
from torch import Tensor

from unweave.kernels.adam_rows import adam_rows, gpu, radial_parts, reference

SHAPES = [(9, 7), (3, 1), (1, 1500), (3, 300)]
NORMS = ["free", "unit", "at_most_one"]


def _state(shape: tuple[int, int], dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Weights of many lengths and a step in the middle of training."""
    state = {
        "weights": torch.randn(shape, dtype=torch.float64) * torch.rand(shape[0], 1, dtype=torch.float64) / 3,
        "gradient": torch.randn(shape, dtype=torch.float64),
        "mean": 0.1 * torch.randn(shape, dtype=torch.float64),
        "square": 0.1 * torch.rand(shape, dtype=torch.float64),
    }
    return {name: tensor.to(dtype) for name, tensor in state.items()}


def _options(norm: str, step: int = 7) -> dict[str, Any]:
    return {"lr": 0.063, "betas": (0.9, 0.99), "eps": 1e-8, "step": step, "norm": norm}


def _copy(state: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.to(dtype, copy=True) for name, tensor in state.items()}


@pytest.mark.parametrize("longest", [8192, 4])
@pytest.mark.parametrize("is_tangent", [True, False])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_is_that_of_the_definition(
    shape: tuple[int, int], norm: str, is_tangent: bool, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where rows are too long for a program to hold; numbers of the step are rounded to single precision."""
    monkeypatch.setattr(gpu, "LONGEST", longest)
    ours = _state(shape)
    plain = _copy(ours, torch.float64)
    scale = torch.tensor(0.37, dtype=torch.float64)
    along = torch.randn(shape[0], dtype=torch.float64) if is_tangent else None
    for step in (1, 2):
        adam_rows(**ours, scale=scale, along=along, **_options(norm, step))
        reference.adam_rows(**plain, scale=scale, along=along, **_options(norm, step))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, plain[name], rtol=1e-6, atol=1e-7)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of the interpreter, about what is masked
@pytest.mark.parametrize("scale", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("longest", [8192, 4])
def test_a_scale_that_is_not_finite_changes_nothing(
    scale: float, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "LONGEST", longest)
    state = _state((3, 7), torch.float32)
    before = _copy(state, torch.float32)
    state["gradient"][1] = torch.nan
    adam_rows(**state, scale=torch.tensor(scale), along=torch.ones(3), **_options("unit"))
    assert all(torch.equal(state[name], before[name]) for name in ("weights", "mean", "square"))


def test_a_row_of_zeros_stays_one() -> None:
    state = {name: torch.zeros(3, 7) for name in ("weights", "gradient", "mean", "square")}
    adam_rows(**state, scale=torch.tensor(1.0), along=torch.zeros(3), **_options("unit"))
    assert torch.equal(state["weights"], torch.zeros(3, 7))


def test_weights_in_bfloat16_step_with_moments_in_single_precision() -> None:
    exact = _state((9, 63))
    ours = _copy(exact, torch.bfloat16) | {name: exact[name].float() for name in ("mean", "square")}
    exact = _copy(ours, torch.float64)
    along = torch.randn(9)
    adam_rows(**ours, scale=torch.tensor(0.37), along=along, **_options("unit"))
    reference.adam_rows(**exact, scale=torch.tensor(0.37).double(), along=along.double(), **_options("unit"))
    for name in ("mean", "square"):
        torch.testing.assert_close(ours[name].double(), exact[name], rtol=1e-5, atol=1e-6)
    assert ours["weights"].dtype == torch.bfloat16
    torch.testing.assert_close(ours["weights"].double(), exact["weights"], rtol=2**-7, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_radial_parts_are_those_of_the_definition(shape: tuple[int, int]) -> None:
    state = _state(shape)
    state["weights"][0] = 0.0
    ours = radial_parts(state["gradient"], state["weights"])
    plain = reference.radial_parts(state["gradient"], state["weights"])
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_radial_parts_of_bfloat16_are_in_single_precision() -> None:
    state = _state((7, 63), torch.bfloat16)
    ours = radial_parts(state["gradient"], state["weights"])
    plain = reference.radial_parts(state["gradient"].double(), state["weights"].double())
    for one, other in zip(ours, plain, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)
