"""Selections on the path for GPUs against their definitions: which entries, in which order, and how many."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unweave.kernels.encode import encode
from unweave.kernels.encode.reference import preactivations
from unweave.kernels.selection import Above, GroupMax, Rule, TopKOfBatch, TopKOfRow, gpu, narrow, reference, select
from unweave.types import Codes

from ..conftest import assert_well_formed

KINDS = ("normal", "ties", "negative", "equal", "hot row", "hot latent", "zeros")


def _matrix(n_rows: int, n_latents: int, kind: str, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """By default in bfloat16, where many numbers are equal and a bisection takes 15 steps."""
    pre = torch.randn(n_rows, n_latents, dtype=torch.float64)
    if kind == "ties":
        pre = (2 * pre).round()
    elif kind == "negative":
        pre = -pre.abs() - 0.1
    elif kind == "equal":
        pre = torch.full_like(pre, 0.5)
    elif kind == "hot row":
        pre[n_rows // 2] += 100
    elif kind == "hot latent":
        pre[:, n_latents // 2] += 100
    elif kind == "zeros":
        pre = pre.clamp(max=0)
    return pre.to(dtype)


def _assert_selected(codes: Codes, pre: Tensor, rule: Rule) -> None:
    """Entries that are not 0 are those of the definition, and so are ties."""
    assert_well_formed(codes, tuple(pre.shape))
    assert codes.values.dtype == pre.dtype
    assert torch.equal(codes.dense(), torch.where(reference.mask(pre, rule), pre, 0.0))


@pytest.fixture(params=["whole rows", "groups", "groups that overflow"])
def search(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to find the cut of a row, for rows of any length."""
    if request.param != "whole rows":
        monkeypatch.setattr(gpu, "WHOLE", 0)
        monkeypatch.setattr(gpu, "TILE", 32)
    if request.param == "groups that overflow":
        monkeypatch.setattr(gpu, "SPACE", (4, 4))
    return request.param


@pytest.mark.parametrize("kind", KINDS)
def test_top_k_of_row_keeps_the_largest_of_each_row(kind: str, search: str) -> None:
    pre, rule = _matrix(2, 63, kind), TopKOfRow(7)
    codes = select(pre, rule)
    _assert_selected(codes, pre, rule)
    assert codes.row_offsets.diff().tolist() == [7] * 2


@pytest.mark.parametrize("kind", ["normal", "ties", "zeros"])
def test_signed_top_k_of_row_keeps_the_largest_magnitudes(kind: str, search: str) -> None:
    pre, rule = _matrix(2, 63, kind), TopKOfRow(7, signed=True)
    _assert_selected(select(pre, rule), pre, rule)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_numbers_of_every_length_are_ranked_in_a_row(dtype: torch.dtype, search: str) -> None:
    pre, rule = _matrix(1, 63, "normal", dtype), TopKOfRow(7)
    _assert_selected(select(pre, rule), pre, rule)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_numbers_of_every_length_are_ranked_in_a_batch(dtype: torch.dtype) -> None:
    pre, rule = _matrix(1, 63, "normal", dtype), TopKOfBatch(3.5)
    _assert_selected(select(pre, rule), pre, rule)


@pytest.mark.parametrize("k", [1, 63, 100])
def test_a_row_may_be_kept_whole_or_down_to_one(k: int, search: str) -> None:
    pre = _matrix(2, 63, "normal")
    codes = select(pre, TopKOfRow(k))
    _assert_selected(codes, pre, TopKOfRow(k))
    assert len(codes.values) == 2 * min(k, 63)


@pytest.mark.parametrize("k", [0.2, 3.3, 40.0])
@pytest.mark.parametrize("kind", KINDS)
def test_top_k_of_batch_keeps_the_largest_of_all_rows(kind: str, k: float) -> None:
    pre, rule = _matrix(5, 63, kind), TopKOfBatch(k)
    codes = select(pre, rule)
    _assert_selected(codes, pre, rule)
    assert len(codes.values) == int(5 * k)


def test_ties_of_a_batch_go_to_the_lower_row() -> None:
    codes = select(torch.full((7, 63), 0.5), TopKOfBatch(10.0))
    assert codes.row_offsets.tolist() == [0, 63, 70, 70, 70, 70, 70, 70]


def test_explicit_zeros_of_a_batch_are_spread_over_its_rows() -> None:
    codes = select(torch.zeros(7, 63), TopKOfBatch(10.0))
    assert codes.row_offsets.diff().tolist() == [10] * 7


@pytest.mark.parametrize("threshold", [-0.3, 0.0, 0.5, 1000.0])
@pytest.mark.parametrize("form", ["number", "tensor", "one for each"])
def test_entries_strictly_above_a_threshold_are_kept(threshold: float, form: str) -> None:
    pre = _matrix(5, 63, "ties") / 2
    given: Tensor | float = threshold
    if form == "tensor":
        given = torch.tensor(threshold)
    elif form == "one for each":
        given = threshold + torch.linspace(-1, 1, 63)
    codes = select(pre, Above(given))
    _assert_selected(codes, pre, Above(given))
    assert len(codes.values) == int((pre > given).sum())


@pytest.mark.parametrize("n_groups", [1, 7, 63])
@pytest.mark.parametrize("kind", KINDS)
def test_group_max_keeps_the_first_largest_of_each_group(kind: str, n_groups: int) -> None:
    pre, rule = _matrix(5, 63, kind), GroupMax(n_groups)
    codes = select(pre, rule)
    _assert_selected(codes, pre, rule)
    assert codes.row_offsets.diff().tolist() == [n_groups] * 5


@pytest.mark.parametrize(
    "rule", [TopKOfRow(7), TopKOfBatch(7.0), Above(0.5), GroupMax(7)], ids=lambda rule: type(rule).__name__
)
def test_no_rows_give_no_codes(rule: Rule) -> None:
    codes = select(torch.empty(0, 63), rule)
    assert codes.row_offsets.tolist() == [0]
    assert len(codes.values) == 0


def test_a_number_that_is_none_is_not_kept() -> None:
    pre = _matrix(5, 63, "normal")
    pre[1:, ::3] = torch.nan
    for rule in (TopKOfRow(7), TopKOfBatch(7.0), GroupMax(7), Above(0.5)):
        _assert_selected(select(pre, rule), pre.nan_to_num(-1.0), rule)


def test_codes_that_are_narrowed_keep_their_entries_as_zeros(make_codes: Callable[..., Codes]) -> None:
    wide = make_codes(7, 63, 0.4)
    values = wide.values.abs().requires_grad_()
    narrowed = narrow(wide.with_values(values), TopKOfRow(3))
    plain = wide.with_values(values).dense()
    kept = reference.top_k_of_row(plain, 3)
    assert torch.equal(narrowed.dense(), torch.where(kept, plain, 0.0))
    assert narrowed.latent_ids is wide.latent_ids
    narrowed.values.sum().backward()
    assert torch.equal(values.grad, kept[wide.row_ids, wide.latent_ids].double())


@pytest.mark.parametrize(
    "rule",
    [TopKOfRow(7), TopKOfRow(7, signed=True), TopKOfBatch(5.5), Above(-0.4), GroupMax(9)],
    ids=["row", "signed", "batch", "above", "group"],
)
def test_gradients_of_encode_are_those_of_the_full_product(rule: Rule) -> None:
    """With so few positive entries that some are explicit zeros, which carry no gradient."""
    parts = {
        "x": torch.randn(9, 7),
        "W_enc": torch.randn(63, 7),
        "b_enc": torch.randn(63) - 4,
        "centre": torch.randn(7),
    }
    parts = {name: part.double().requires_grad_() for name, part in parts.items()}
    cotangent = torch.randn(9, 63, dtype=torch.float64)
    codes = encode(parts["x"], parts["W_enc"], parts["b_enc"], rule, centre=parts["centre"])
    pre = preactivations(**parts)
    plain = torch.where(reference.mask(pre, rule), pre, 0.0)
    torch.testing.assert_close(codes.dense(), plain, rtol=1e-12, atol=1e-12)
    ours = torch.autograd.grad((codes.dense() * cotangent).sum(), list(parts.values()))
    theirs = torch.autograd.grad((plain * cotangent).sum(), list(parts.values()))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
