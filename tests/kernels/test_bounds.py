"""The bound of a bfloat16 product's error holds, also where it is nearly reached, and is not absurdly loose."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unweave.kernels.encode.bounds import ROUNDING, rounded, slack

KINDS = (
    "normal",
    "outlier dimensions",
    "rows of very different norms",
    "just under half a unit",
    "weights along what rounding took away",
    "already rounded",
    "tiny",
    "subnormal",
    "huge",
    "zero rows",
)


def _operands(kind: str, width: int, seed: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, W = (torch.randn(n, width, generator=generator) for n in (63, 100))
    match kind:
        case "outlier dimensions":
            x[:, ::17] *= 1000
        case "rows of very different norms":
            x *= 10 ** (12 * torch.rand(63, 1, generator=generator) - 6)
            W *= 10 ** (12 * torch.rand(100, 1, generator=generator) - 6)
        case "just under half a unit":
            x, W = (torch.full_like(m, 1 + 2**-8 - 2**-12) for m in (x, W))
        case "weights along what rounding took away":
            W[:63] = (x - x.bfloat16().float()) * 2**10
            W = W.bfloat16().float()
        case "already rounded":
            x, W = x.bfloat16().float(), W.bfloat16().float()
        case "tiny":
            x, W = 1e-20 * x, 1e-15 * W
        case "subnormal":
            x, W = 1e-3 * x, 1e-40 * W
        case "huge":
            x, W = 1e18 * x, 1e16 * W
        case "zero rows":
            x[::3], W[::7] = 0, 0
    return x, W


def _error_and_bound(x: Tensor, W: Tensor) -> tuple[Tensor, Tensor]:
    """How far the product of rounded operands is from the exact one, and how far it may be, vanished ones included."""
    ours, weights = rounded(x), rounded(W)
    proposed = torch.mm(ours.values, weights.values.T).double()
    error = (proposed - x.double() @ W.double().T).abs()
    vanished = 2 * x.shape[1] * torch.finfo(torch.float32).tiny
    return error, slack(ours, weights).double()[:, None] * weights.norms + ROUNDING * proposed.abs() + vanished


@pytest.mark.parametrize("width", [1, 7, 63, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_no_rounded_product_is_further_from_the_exact_one_than_the_bound(kind: str, width: int) -> None:
    error, bound = _error_and_bound(*_operands(kind, width))
    assert (error <= bound).all(), f"{(error / bound).nan_to_num().max()} times the bound"
    assert bound.isfinite().all()


@given(
    st.integers(1, 63).flatmap(
        lambda width: st.lists(
            st.lists(st.floats(-(2**50), 2**50, width=32), min_size=width, max_size=width), min_size=2, max_size=9
        )
    )
)
def test_the_bound_holds_for_any_numbers(rows: list[list[float]]) -> None:
    error, bound = _error_and_bound(torch.tensor(rows[:1]), torch.tensor(rows[1:]))
    assert (error <= bound).all()


@pytest.mark.parametrize("width", [7, 63, 1000])
def test_the_bound_is_nearly_reached_where_weights_lie_along_what_rounding_took_away(width: int) -> None:
    error, bound = _error_and_bound(*_operands("weights along what rounding took away", width))
    assert (error / bound).max() > 0.8


@pytest.mark.parametrize(("width", "at_most"), [(7, 20), (63, 50), (1000, 200)])
def test_on_random_rows_the_bound_is_a_few_roots_of_the_width_above_the_usual_error(width: int, at_most: int) -> None:
    """Cauchy-Schwarz takes rounding errors to be aligned, while random ones add up like a root of the width."""
    error, bound = _error_and_bound(*_operands("normal", width))
    assert (bound / error).median() < at_most


@pytest.mark.parametrize("kind", KINDS)
def test_norms_and_what_rounding_took_away_are_those_of_float64(kind: str) -> None:
    """Subnormal numbers count as taken away, as the instructions for bfloat16 take them for 0."""
    for matrix in _operands(kind, 63):
        ours = rounded(matrix)
        exact, half = matrix.double(), matrix.bfloat16().double()
        seen = torch.where(half.abs() >= torch.finfo(torch.float32).tiny, half, 0.0)
        torch.testing.assert_close(ours.norms, exact.norm(dim=1).float(), rtol=1e-6, atol=0)
        torch.testing.assert_close(ours.losses, (exact - seen).norm(dim=1).float(), rtol=1e-6, atol=0)
