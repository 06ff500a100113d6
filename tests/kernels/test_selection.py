from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unweave.kernels import selection
from unweave.kernels.selection import above_threshold, reference, top_k_of_batch, top_k_of_row
from unweave.types import Codes

KINDS = ("normal", "ties", "negative", "equal", "hot row", "hot latent", "zeros")


def _matrix(n_rows: int, n_latents: int, kind: str, seed: int = 7) -> Tensor:
    pre = torch.randn(n_rows, n_latents, generator=torch.Generator().manual_seed(seed))
    if kind == "ties":
        return (2 * pre).round()
    if kind == "negative":
        return -pre.abs() - 0.1
    if kind == "equal":
        return torch.full_like(pre, 0.5)
    if kind == "hot row":
        pre[n_rows // 2] += 100
    elif kind == "hot latent":
        pre[:, n_latents // 2] += 100
    elif kind == "zeros":
        pre = pre.clamp(max=0)
    return pre


def _assert_well_formed(codes: Codes, pre: Tensor) -> None:
    """Offsets, order within rows, row ids, and values that are those of the matrix."""
    offsets = codes.row_offsets.tolist()
    assert codes.n_latents == pre.shape[1]
    assert len(offsets) == pre.shape[0] + 1
    assert (offsets[0], offsets[-1]) == (0, len(codes.values))
    for row, (start, end) in enumerate(pairwise(offsets)):
        latents = codes.latent_ids[start:end].tolist()
        assert latents == sorted(set(latents))
        assert codes.row_ids[start:end].tolist() == [row] * (end - start)
        assert torch.equal(codes.values[start:end], pre[row, latents])


def _mask(codes: Codes) -> Tensor:
    mask = torch.zeros(codes.n_rows, codes.n_latents, dtype=torch.bool)
    mask[codes.row_ids, codes.latent_ids] = True
    return mask


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threshold", [-0.3, 0.0, 0.5, torch.tensor(0.5), 1000.0])
def test_entries_strictly_above_a_threshold_become_codes(kind: str, threshold: float | Tensor) -> None:
    pre = _matrix(63, 100, kind)
    codes = above_threshold(pre, threshold)
    _assert_well_formed(codes, pre)
    assert torch.equal(_mask(codes), reference.above_threshold(pre, threshold))


def test_a_row_above_a_threshold_does_not_depend_on_the_other_rows() -> None:
    pre = _matrix(7, 63, "normal")
    whole = above_threshold(pre, 0.7)
    for row in range(7):
        alone = above_threshold(pre[row : row + 1], 0.7)
        start, end = whole.row_offsets[row], whole.row_offsets[row + 1]
        assert torch.equal(alone.latent_ids, whole.latent_ids[start:end])
        assert torch.equal(alone.values, whole.values[start:end])


@pytest.mark.parametrize("k", [1, 7, 63, 100])
@pytest.mark.parametrize("kind", ["normal", "negative", "hot row", "hot latent", "zeros"])
def test_top_k_of_row_is_the_reference_where_no_values_tie(k: int, kind: str) -> None:
    pre = _matrix(63, 100, kind)
    codes = top_k_of_row(pre, k)
    _assert_well_formed(codes, pre)
    assert torch.equal(_mask(codes), reference.top_k_of_row(pre, k))


@given(st.integers(1, 9), st.integers(1, 63), st.data(), st.sampled_from(KINDS), st.integers(0, 1000))
def test_top_k_of_row_keeps_the_largest_positive_values_of_each_row_also_among_ties(
    n_rows: int, n_latents: int, data: st.DataObject, kind: str, seed: int
) -> None:
    k = data.draw(st.integers(1, n_latents))
    pre = _matrix(n_rows, n_latents, kind, seed)
    codes = top_k_of_row(pre, k)
    _assert_well_formed(codes, pre)
    for row in range(n_rows):
        kept = codes.values[codes.row_offsets[row] : codes.row_offsets[row + 1]]
        best = [value for value in sorted(pre[row].tolist(), reverse=True)[:k] if value > 0]
        assert sorted(kept.tolist(), reverse=True) == best


def _assert_largest_of_batch(codes: Codes, pre: Tensor, k: int) -> None:
    _assert_well_formed(codes, pre)
    positive = sorted((value for value in pre.flatten().tolist() if value > 0), reverse=True)
    assert len(codes.values) == min(pre.shape[0] * k, len(positive))
    assert sorted(codes.values.tolist(), reverse=True) == positive[: pre.shape[0] * k]


@given(
    st.integers(1, 9),
    st.integers(1, 63),
    st.data(),
    st.sampled_from(KINDS),
    st.integers(0, 1000),
    st.sampled_from([3, 16, 100, selection.SAMPLED]),
)
def test_top_k_of_batch_keeps_exactly_the_largest_positive_values(
    n_rows: int, n_latents: int, data: st.DataObject, kind: str, seed: int, sampled: int
) -> None:
    """Whatever part of the matrix the bound is guessed from."""
    k = data.draw(st.integers(1, n_latents))
    pre = _matrix(n_rows, n_latents, kind, seed)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(selection, "SAMPLED", sampled)
        _assert_largest_of_batch(top_k_of_batch(pre, k), pre, k)


@given(
    st.lists(st.lists(st.floats(-9, 9, width=32), min_size=7, max_size=7), min_size=1, max_size=7), st.integers(1, 7)
)
def test_top_k_of_batch_is_right_on_any_finite_numbers(rows: list[list[float]], k: int) -> None:
    pre = torch.tensor(rows)
    _assert_largest_of_batch(top_k_of_batch(pre, k), pre, k)


@pytest.mark.parametrize("k", [1, 7, 30])
def test_top_k_of_batch_is_the_reference_on_a_matrix_larger_than_its_sample(k: int) -> None:
    pre = _matrix(100, 1000, "normal")
    codes = top_k_of_batch(pre, k)
    _assert_well_formed(codes, pre)
    assert torch.equal(_mask(codes), reference.top_k_of_batch(pre, k))


def _lopsided(in_sample: float, elsewhere: float) -> Tensor:
    """A matrix of 200 x 1000 whose every third entry, which are those that the bound is guessed from, is different."""
    flat = torch.rand(200 * 1000, generator=torch.Generator().manual_seed(63)) + elsewhere
    step = flat.shape[0] // selection.SAMPLED
    assert step == 3, "the test needs to know which entries are sampled"
    flat[::step] += in_sample - elsewhere
    return flat.view(200, 1000)


def test_a_bound_guessed_too_high_does_not_lose_entries() -> None:
    pre = _lopsided(in_sample=100.0, elsewhere=1.0)
    assert (pre > 50).sum() < 200 * 400, "the guess must lie above the true bound"
    _assert_largest_of_batch(top_k_of_batch(pre, 400), pre, 400)


def test_a_bound_guessed_too_low_does_not_add_entries() -> None:
    pre = _lopsided(in_sample=1.0, elsewhere=100.0)
    _assert_largest_of_batch(top_k_of_batch(pre, 30), pre, 30)


def test_selections_of_nothing_are_empty_codes() -> None:
    pre = -torch.ones(7, 63)
    for codes in (above_threshold(pre, 0.0), top_k_of_row(pre, 7), top_k_of_batch(pre, 7)):
        assert codes.values.shape == (0,)
        assert codes.row_offsets.tolist() == [0] * 8
        assert torch.equal(codes.dense(), torch.zeros(7, 63))
