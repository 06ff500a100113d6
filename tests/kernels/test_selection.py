"""Every rule on a whole matrix, against its definition and against plain sorting."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unweave.kernels.selection import Above, GroupMax, Rule, TopKOfBatch, TopKOfRow, largest, narrow, reference, select
from unweave.kernels.selection.cpu import FIRST
from unweave.types import Codes

from .conftest import assert_well_formed, mask_of

KINDS = (
    "normal",
    "ties",
    "negative",
    "equal",
    "equal and negative",
    "hot row",
    "hot latent",
    "zeros",
    "first rows large",
    "first rows small",
    "first rows negative",
    "all in the last row",
    "one positive",
)
"""Matrices of many shapes of distribution; the later ones mislead a threshold guessed from the first rows."""


def _matrix(n_rows: int, n_latents: int, kind: str, seed: int = 7) -> Tensor:
    pre = torch.randn(n_rows, n_latents, generator=torch.Generator().manual_seed(seed))
    match kind:
        case "ties":
            pre = (2 * pre).round()
        case "negative":
            pre = -pre.abs() - 0.1
        case "equal":
            pre = torch.full_like(pre, 0.5)
        case "equal and negative":
            pre = torch.full_like(pre, -0.5)
        case "hot row":
            pre[n_rows // 2] += 100
        case "hot latent":
            pre[:, n_latents // 2] += 100
        case "zeros":
            pre = pre.clamp(max=0)
        case "first rows large":
            pre[:FIRST] *= 1000
        case "first rows small":
            pre[:FIRST] *= 0.001
        case "first rows negative":
            pre[:FIRST] = -pre[:FIRST].abs()
        case "all in the last row":
            pre[:-1] = -pre[:-1].abs()
            pre[-1] = pre[-1].abs()
        case "one positive":
            pre = -pre.abs()
            pre[-1, -1] = 0.3
    return pre


def _rules(n_latents: int) -> list[Rule]:
    rules: list[Rule] = [TopKOfRow(k, signed) for k in sorted({1, 7, n_latents}) for signed in (False, True)]
    rules += [TopKOfBatch(k) for k in (0.01, 0.7, 3.0, 7.3, 30.0, float(n_latents)) if k <= n_latents]
    per_latent = torch.linspace(-1, 2, n_latents)
    rules += [Above(t) for t in (-0.3, 0.0, 0.5, 1000.0, torch.tensor(0.5), per_latent)]
    return rules + [GroupMax(n) for n in (1, 9, n_latents) if n_latents % n == 0]


def _name(rule: Rule) -> str:
    threshold = getattr(rule, "threshold", None)
    return f"{type(rule).__name__}(one for each)" if isinstance(threshold, Tensor) and threshold.ndim else str(rule)


def _assert_as_defined(pre: Tensor, rule: Rule) -> None:
    codes = select(pre, rule)
    assert_well_formed(codes, (pre.shape[0], pre.shape[1]))
    expected = reference.mask(pre, rule)
    assert torch.equal(mask_of(codes), expected)
    assert torch.equal(codes.values, pre[expected])
    assert codes.values.dtype == pre.dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", _rules(63), ids=_name)
def test_a_rule_keeps_exactly_the_entries_of_its_definition(rule: Rule, dtype: torch.dtype) -> None:
    """More rows than the block that a batch's threshold is guessed from, and an odd number."""
    for kind in KINDS:
        _assert_as_defined(_matrix(100, 63, kind).to(dtype), rule)


@pytest.mark.parametrize("rule", [TopKOfRow(7), TopKOfBatch(7.3), Above(1.3), GroupMax(25)], ids=_name)
@pytest.mark.parametrize("n_rows", [1, 63, 64, 65, 256, 257, 601])
def test_no_row_is_lost_between_blocks(rule: Rule, n_rows: int) -> None:
    _assert_as_defined(_matrix(n_rows, 1000, "normal"), rule)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rule", _rules(63), ids=_name)
def test_other_precisions_follow_the_same_definition(rule: Rule, dtype: torch.dtype) -> None:
    if isinstance(rule, Above) and isinstance(rule.threshold, Tensor):
        rule = Above(rule.threshold.to(dtype))
    _assert_as_defined(_matrix(7, 63, "normal").to(dtype), rule)


@pytest.mark.parametrize(
    "rule", [TopKOfRow(63), TopKOfRow(200), TopKOfRow(200, True), TopKOfBatch(200.0), TopKOfBatch(0.01)], ids=_name
)
def test_more_than_there_are_keeps_all_that_count_and_less_than_one_keeps_none(rule: Rule) -> None:
    pre = _matrix(7, 63, "normal")
    expected = {False: int((pre > 0).sum()), True: int((pre != 0).sum())}[getattr(rule, "signed", False)]
    codes = select(pre, rule)
    assert len(codes.values) == (0 if rule == TopKOfBatch(0.01) else expected)
    _assert_as_defined(pre, rule)


@pytest.mark.parametrize(
    "rule", [TopKOfRow(3), TopKOfRow(3, True), TopKOfBatch(3.0), Above(0.0), GroupMax(9)], ids=_name
)
def test_no_rows_give_no_codes(rule: Rule) -> None:
    codes = select(torch.zeros(0, 63), rule)
    assert_well_formed(codes, (0, 63))


@pytest.mark.parametrize("rule", [TopKOfRow(7), TopKOfBatch(7.0), Above(0.0), GroupMax(9)], ids=_name)
def test_selections_of_nothing_are_empty_codes(rule: Rule) -> None:
    codes = select(-torch.ones(7, 63), rule)
    assert codes.values.shape == (0,)
    assert codes.row_offsets.tolist() == [0] * 8
    assert torch.equal(codes.dense(), torch.zeros(7, 63))


def test_an_entry_at_its_threshold_is_not_above_it() -> None:
    pre = torch.tensor([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]])
    assert mask_of(select(pre, Above(torch.tensor(0.2)))).tolist() == [[False, False, True], [True, False, False]]
    thresholds = torch.tensor([0.1, 0.2, 0.05])
    assert mask_of(select(pre, Above(thresholds))).tolist() == [[False, False, True], [True, False, True]]


def test_ties_go_to_the_lower_row_and_then_to_the_lower_latent() -> None:
    pre = torch.ones(7, 9)
    assert mask_of(select(pre, TopKOfRow(2))).nonzero()[:, 1].tolist() == [0, 1] * 7
    assert mask_of(select(pre, TopKOfBatch(1.5))).nonzero().tolist() == [[0, i] for i in range(9)] + [[1, 0]]
    assert mask_of(select(pre, GroupMax(3))).nonzero()[:, 1].tolist() == [0, 3, 6] * 7


def test_the_signed_rule_ranks_by_magnitude_and_keeps_signs() -> None:
    codes = select(torch.tensor([[0.5, -3.0, 0.0, 2.0, -2.0]]), TopKOfRow(3, signed=True))
    assert codes.values.tolist() == [-3.0, 2.0, -2.0]
    assert codes.latent_ids.tolist() == [1, 3, 4]


def test_a_row_above_a_threshold_does_not_depend_on_the_other_rows() -> None:
    pre = _matrix(7, 63, "normal")
    for rule in (Above(0.7), TopKOfRow(5), GroupMax(7)):
        whole = select(pre, rule)
        for row in range(7):
            alone = select(pre[row : row + 1], rule)
            start, end = whole.row_offsets[row], whole.row_offsets[row + 1]
            assert torch.equal(alone.latent_ids, whole.latent_ids[start:end])
            assert torch.equal(alone.values, whole.values[start:end])


def test_a_transposed_or_sliced_matrix_is_read_as_what_it_shows() -> None:
    pre = _matrix(63, 7, "normal")
    for view in (pre.T, pre[::3], pre[:, 1:6], pre[:0]):
        _assert_as_defined(view, TopKOfRow(2))
        _assert_as_defined(view, TopKOfBatch(1.7))


_FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
_MATRICES = st.integers(1, 9).flatmap(
    lambda width: st.lists(st.lists(_FINITE, min_size=width, max_size=width), min_size=1, max_size=70)
)


@given(_MATRICES, st.integers(1, 9), st.booleans())
def test_top_k_of_row_is_right_on_any_finite_numbers(rows: list[list[float]], k: int, signed: bool) -> None:
    _assert_as_defined(torch.tensor(rows), TopKOfRow(min(k, len(rows[0])), signed))


@given(_MATRICES, st.floats(0.01, 9))
def test_top_k_of_batch_is_right_on_any_finite_numbers(rows: list[list[float]], k: float) -> None:
    _assert_as_defined(torch.tensor(rows), TopKOfBatch(k))


@given(_MATRICES, st.data())
def test_above_is_right_on_any_finite_numbers(rows: list[list[float]], data: st.DataObject) -> None:
    pre = torch.tensor(rows)
    thresholds = data.draw(st.lists(_FINITE, min_size=len(rows[0]), max_size=len(rows[0])))
    _assert_as_defined(pre, Above(torch.tensor(thresholds)))
    _assert_as_defined(pre, Above(rows[0][0]))


@given(_MATRICES, st.data())
def test_group_max_is_right_on_any_finite_numbers(rows: list[list[float]], data: st.DataObject) -> None:
    width = len(rows[0])
    n_groups = data.draw(st.sampled_from([n for n in range(1, width + 1) if width % n == 0]))
    _assert_as_defined(torch.tensor(rows), GroupMax(n_groups))


@given(
    st.integers(1, 150),
    st.integers(1, 63),
    st.data(),
    st.sampled_from(KINDS),
    st.integers(0, 1000),
)
def test_top_k_of_batch_keeps_the_largest_positive_values_of_the_whole_batch(
    n_rows: int, n_latents: int, data: st.DataObject, kind: str, seed: int
) -> None:
    k = data.draw(st.floats(0.1, n_latents))
    pre = _matrix(n_rows, n_latents, kind, seed)
    codes = select(pre, TopKOfBatch(k))
    assert_well_formed(codes, (n_rows, n_latents))
    positive = sorted((value for value in pre.flatten().tolist() if value > 0), reverse=True)
    assert sorted(codes.values.tolist(), reverse=True) == positive[: int(n_rows * k)]


@given(st.lists(st.integers(-9, 9), max_size=63), st.integers(0, 70))
def test_the_largest_of_many_values_are_marked_and_the_first_of_ties(numbers: list[int], count: int) -> None:
    order = sorted(range(len(numbers)), key=lambda i: (-numbers[i], i))[:count]
    marked = largest(torch.tensor(numbers, dtype=torch.float32), count)
    assert marked.nonzero().flatten().tolist() == sorted(order)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_narrowing_codes_gives_what_the_smaller_k_selects(kind: str, signed: bool) -> None:
    pre = _matrix(63, 100, kind).double()
    wide = select(pre, TopKOfRow(28, signed))
    for k in (1, 7, 28, 63):
        rule = TopKOfRow(k, signed)
        narrowed, direct = narrow(wide, rule), select(pre, replace(rule, k=min(k, 28)))
        assert_well_formed(narrowed, (63, 100))
        assert torch.equal(narrowed.latent_ids, direct.latent_ids)
        assert torch.equal(narrowed.row_offsets, direct.row_offsets)
        assert torch.equal(narrowed.values, direct.values)


def test_narrowing_passes_gradients_to_what_is_kept() -> None:
    wide: Codes = select(_matrix(7, 63, "normal").double(), TopKOfRow(9))
    values = wide.values.clone().requires_grad_()
    kept = narrow(wide.with_values(values), TopKOfRow(4))
    weights = torch.randn(len(kept.values), dtype=torch.float64)
    (kept.values * weights).sum().backward()
    by_hand = torch.zeros(7, 63, dtype=torch.float64)
    by_hand[kept.row_ids, kept.latent_ids] = weights
    assert torch.equal(values.grad, by_hand[wide.row_ids, wide.latent_ids])
    assert int((values.grad != 0).sum()) == 28
