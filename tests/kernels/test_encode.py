"""Encoding: values and all gradients against the full product under autograd, and both precisions on whole numbers."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import numba
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unweave.kernels.encode import encode
from unweave.kernels.encode.reference import active_values, preactivations
from unweave.kernels.selection import Above, GroupMax, Rule, TopKOfBatch, TopKOfRow, reference
from unweave.types import Codes

from .conftest import assert_well_formed, bfloat16_proposes, float32_alone, mask_of

RULES: dict[str, Rule] = {
    "top_k_of_row": TopKOfRow(7),
    "top_k_of_row_signed": TopKOfRow(7, signed=True),
    "top_k_of_batch": TopKOfBatch(3.3),
    "above": Above(0.5),
    "above_one_for_each": Above(torch.linspace(-1, 3, 63, dtype=torch.float64)),
    "group_max": GroupMax(9),
    "nothing": Above(1e9),
    "everything": Above(-1e9),
}


def _parts(n_rows: int = 100, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return {
        "x": torch.randn(n_rows, 7, dtype=dtype) + 0.5,
        "W_enc": torch.randn(63, 7, dtype=dtype),
        "b_enc": 0.3 * torch.randn(63, dtype=dtype),
        "centre": torch.randn(7, dtype=dtype),
    }


def _expected(parts: dict[str, Tensor], rule: Rule) -> tuple[Tensor, Tensor]:
    pre = preactivations(**parts)
    mask = reference.mask(pre.detach(), rule)
    return mask, active_values(pre, mask)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_values_and_all_gradients_are_those_of_the_full_product(rule: Rule, centred: bool, route: str) -> None:
    ours, plain = [
        {name: part.requires_grad_() for name, part in _seeded_parts().items() if centred or name != "centre"}
        for _ in range(2)
    ]
    codes = encode(ours["x"], ours["W_enc"], ours["b_enc"], rule, centre=ours.get("centre"))
    mask, values = _expected(plain, rule)
    assert_well_formed(codes, (100, 63))
    assert torch.equal(mask_of(codes), mask)
    torch.testing.assert_close(codes.values, values, rtol=1e-12, atol=1e-12)

    cotangent = torch.randn_like(values)
    gradients = torch.autograd.grad(codes.values, list(ours.values()), cotangent)
    expected = torch.autograd.grad(values, list(plain.values()), cotangent)
    for name, gradient, wanted in zip(ours, gradients, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-11, atol=1e-11, msg=lambda text, n=name: f"{n}: {text}")


def _seeded_parts() -> dict[str, Tensor]:
    torch.manual_seed(7)
    return _parts()


@pytest.mark.parametrize("wanted", ["x", "W_enc", "b_enc", "centre"])
def test_a_gradient_goes_to_whichever_side_asks(wanted: str) -> None:
    ours, plain = _seeded_parts(), _seeded_parts()
    asked, expected = ours[wanted].requires_grad_(), plain[wanted].requires_grad_()
    values = encode(ours["x"], ours["W_enc"], ours["b_enc"], TopKOfRow(7), centre=ours["centre"]).values
    (gradient,) = torch.autograd.grad(values.square().sum(), asked)
    (by_hand,) = torch.autograd.grad(_expected(plain, TopKOfRow(7))[1].square().sum(), expected)
    torch.testing.assert_close(gradient, by_hand, rtol=1e-11, atol=1e-11)


def test_gradcheck_agrees_where_no_selection_changes() -> None:
    parts = {name: part.requires_grad_() for name, part in _parts(9).items()}

    def values(x: Tensor, W_enc: Tensor, b_enc: Tensor, centre: Tensor) -> Tensor:
        return encode(x, W_enc, b_enc, TopKOfRow(5), centre=centre).values

    assert torch.autograd.gradcheck(values, tuple(parts.values()))


def test_a_graph_is_built_only_for_what_asks_for_gradients() -> None:
    parts = _parts(9)
    rule = TopKOfRow(5)
    assert not encode(parts["x"], parts["W_enc"], parts["b_enc"], rule).values.requires_grad
    parts["W_enc"].requires_grad_()
    assert encode(parts["x"], parts["W_enc"], parts["b_enc"], rule).values.requires_grad
    with torch.no_grad():
        assert not encode(parts["x"], parts["W_enc"], parts["b_enc"], rule).values.requires_grad


@pytest.mark.parametrize("rule", [TopKOfRow(7), TopKOfRow(7, True), TopKOfBatch(7.0), Above(0.0), GroupMax(9)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_rows_give_no_codes(rule: Rule, dtype: torch.dtype) -> None:
    parts = _parts(0, dtype)
    codes = encode(parts["x"], parts["W_enc"], parts["b_enc"], rule)
    assert_well_formed(codes, (0, 63))
    assert codes.values.dtype == dtype


def test_weights_and_rows_in_any_layout_are_read_as_what_they_show() -> None:
    parts = _parts()
    expected = encode(parts["x"], parts["W_enc"], parts["b_enc"], TopKOfRow(7))
    strided = encode(parts["x"].T.contiguous().T, parts["W_enc"].T.contiguous().T, parts["b_enc"], TopKOfRow(7))
    assert torch.equal(strided.latent_ids, expected.latent_ids)
    torch.testing.assert_close(strided.values, expected.values, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", [TopKOfRow(7), TopKOfBatch(7.0), Above(1.0), GroupMax(9)], ids=str)
@pytest.mark.parametrize("precision", [bfloat16_proposes, float32_alone])
def test_threads_change_no_bit(rule: Rule, precision: Callable[[], AbstractContextManager]) -> None:
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("this machine has one core")
    parts = _parts(601, torch.float32)

    def run() -> Codes:
        with precision():
            return encode(parts["x"], parts["W_enc"], parts["b_enc"], rule)

    alone = run()
    numba.set_num_threads(2)
    try:
        together = run()
    finally:
        numba.set_num_threads(1)
    assert torch.equal(alone.values, together.values)
    assert torch.equal(alone.latent_ids, together.latent_ids)
    assert torch.equal(alone.row_offsets, together.row_offsets)


@st.composite
def _whole_numbers(draw: st.DrawFn) -> dict[str, Tensor]:
    """Rows, weights, biases and a centre of small whole numbers, whose products every precision knows exactly."""
    n_rows, n_latents, width = draw(st.integers(1, 9)), 3 * draw(st.integers(1, 20)), draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    largest = draw(st.sampled_from([1, 9, 200]))

    def numbers(*shape: int) -> Tensor:
        return torch.randint(-largest, largest + 1, shape, generator=generator).float()

    return {
        "x": numbers(n_rows, width),
        "W_enc": numbers(n_latents, width),
        "b_enc": numbers(n_latents),
        "centre": numbers(width),
    }


def _rule(draw: st.DrawFn, n_latents: int) -> Rule:
    """Any rule, with thresholds that whole numbers can be equal to."""
    k = draw(st.integers(1, n_latents))
    threshold = torch.tensor(draw(st.lists(st.integers(-50, 300), min_size=n_latents, max_size=n_latents)))
    per_row = k * draw(st.floats(0.1, 1.0))
    rules = [TopKOfRow(k), TopKOfRow(k, signed=True), TopKOfBatch(per_row)]
    return draw(st.sampled_from([*rules, Above(float(threshold[0])), Above(threshold.float()), GroupMax(3)]))


@given(_whole_numbers(), st.data(), st.sampled_from(["bfloat16 proposes", "float32 alone", "float64"]))
def test_whole_numbers_are_selected_exactly_ties_included(
    parts: dict[str, Tensor], data: st.DataObject, precision: str
) -> None:
    rule = data.draw(st.composite(_rule)(parts["W_enc"].shape[0]))
    mask, values = _expected({name: part.double() for name, part in parts.items()}, rule)
    if precision == "float64":
        parts = {name: part.double() for name, part in parts.items()}
    with bfloat16_proposes() if precision == "bfloat16 proposes" else float32_alone():
        codes = encode(parts["x"], parts["W_enc"], parts["b_enc"], rule, centre=parts["centre"])
    assert_well_formed(codes, (mask.shape[0], mask.shape[1]))
    assert torch.equal(mask_of(codes), mask)
    assert torch.equal(codes.values.double(), values)
