"""Decode, segment sum and sampled dot: values and gradients of both routes against the plain definitions."""

from collections.abc import Callable

import pytest
import torch

from unweave.kernels.density import DENSE_FROM, is_dense
from unweave.kernels.sampled_dot import reference as plain_dot
from unweave.kernels.sampled_dot import sampled_dot
from unweave.kernels.segment_sum import reference as plain_sum
from unweave.kernels.segment_sum import segment_sum
from unweave.kernels.sparse_decode import reference as plain_decode
from unweave.kernels.sparse_decode import sparse_decode
from unweave.types import Codes

from .conftest import assert_same, double

WIDTH = 7


def test_segment_sum_adds_up_the_rows_of_each_latent(codes: Codes, route: str) -> None:
    weights, source = double(len(codes.values)), double(codes.n_rows, WIDTH)
    expected = torch.zeros(codes.n_latents, WIDTH, dtype=torch.float64)
    for entry in range(len(codes.values)):
        expected[codes.latent_ids[entry]] += weights[entry] * source[codes.row_ids[entry]]
    assert_same(segment_sum(codes, weights, source), expected)
    assert_same(plain_sum.segment_sum(codes, weights, source), expected)


def test_sampled_dot_is_the_product_at_the_active_entries(codes: Codes, route: str) -> None:
    left, right = double(codes.n_rows, WIDTH), double(codes.n_latents, WIDTH)
    entries = range(len(codes.values))
    expected = (
        double(0)
        if not len(entries)
        else torch.stack([left[codes.row_ids[e]] @ right[codes.latent_ids[e]] for e in entries])
    )
    assert_same(sampled_dot(codes, left, right), expected)
    assert_same(plain_dot.sampled_dot(codes, left, right), expected)


def test_sparse_decode_is_the_sum_of_active_decoder_rows(codes: Codes, route: str) -> None:
    W_dec = double(codes.n_latents, WIDTH)
    expected = torch.zeros(codes.n_rows, WIDTH, dtype=torch.float64)
    for entry in range(len(codes.values)):
        expected[codes.row_ids[entry]] += codes.values[entry] * W_dec[codes.latent_ids[entry]]
    assert_same(sparse_decode(codes, W_dec), expected)
    assert_same(plain_decode.sparse_decode(codes, W_dec), expected)


def test_gradients_of_sparse_decode_are_those_of_the_reference(codes: Codes, route: str) -> None:
    weight, cotangent = double(codes.n_latents, WIDTH), double(codes.n_rows, WIDTH)
    gradients = []
    for decode in (sparse_decode, plain_decode.sparse_decode):
        values, W_dec = codes.values.clone().requires_grad_(), weight.clone().requires_grad_()
        out = decode(codes.with_values(values), W_dec)
        gradients.append(torch.autograd.grad(out, (values, W_dec), cotangent))
    for ours, plain in zip(*gradients, strict=True):
        assert_same(ours, plain)


def test_gradcheck_agrees_with_sparse_decode(make_codes: Callable[..., Codes], route: str) -> None:
    codes = make_codes(7, 9, 0.3)
    values, W_dec = codes.values.clone().requires_grad_(), double(9, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda v, w: sparse_decode(codes.with_values(v), w), (values, W_dec))


@pytest.mark.parametrize("wanted", ["values", "W_dec"])
def test_sparse_decode_gives_a_gradient_to_whichever_side_asks(
    make_codes: Callable[..., Codes], route: str, wanted: str
) -> None:
    codes = make_codes(63, 100)
    values, W_dec = codes.values.clone(), double(100, WIDTH)
    asked = {"values": values, "W_dec": W_dec}[wanted].requires_grad_()
    (ours,) = torch.autograd.grad(sparse_decode(codes.with_values(values), W_dec).square().sum(), asked)
    (plain,) = torch.autograd.grad(plain_decode.sparse_decode(codes.with_values(values), W_dec).square().sum(), asked)
    assert_same(ours, plain)


@pytest.mark.parametrize("width", [1, 7, 63, 1000])
def test_rows_of_any_width_are_multiplied(make_codes: Callable[..., Codes], route: str, width: int) -> None:
    """Vector registers hold 4 to 16 numbers; what is left over counts too."""
    codes = make_codes(9, 20, 0.3)
    left, right = double(9, width), double(20, width)
    by_hand = torch.stack([left[b] @ right[i] for b, i in zip(codes.row_ids, codes.latent_ids, strict=True)])
    torch.testing.assert_close(sampled_dot(codes, left, right), by_hand, rtol=1e-11, atol=1e-11)
    ours = sampled_dot(codes, left.float(), right.float())
    torch.testing.assert_close(ours, by_hand.float(), rtol=1e-4, atol=1e-4)


def test_sampled_dot_reads_transposed_matrices_as_what_they_show(make_codes: Callable[..., Codes], route: str) -> None:
    codes = make_codes(9, 20, 0.3)
    left, right = double(7, 9).T, double(7, 20).T
    assert_same(sampled_dot(codes, left, right), plain_dot.sampled_dot(codes, left, right))


def test_entries_that_are_explicit_zeros_are_as_good_as_none(make_codes: Callable[..., Codes], route: str) -> None:
    codes = make_codes(9, 20, 0.3)
    kept = torch.rand(len(codes.values)) < 0.5
    zeroed, dropped = codes.with_values(torch.where(kept, codes.values, 0.0)), codes.where(kept)
    W_dec, source = double(20, WIDTH), double(9, WIDTH)
    assert_same(sparse_decode(zeroed, W_dec), sparse_decode(dropped, W_dec))
    assert_same(segment_sum(zeroed, zeroed.values, source), segment_sum(dropped, dropped.values, source))


def test_both_routes_agree_to_rounding_in_single_precision(
    make_codes: Callable[..., Codes], monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = make_codes(100, 63, 0.2)
    codes = codes.with_values(codes.values.float())
    W_dec, source = torch.randn(63, 100), torch.randn(100, 100)
    results = []
    for dense_from in (0.0, 2.0):
        monkeypatch.setattr("unweave.kernels.density.DENSE_FROM", dense_from)
        results.append(
            (
                sparse_decode(codes, W_dec),
                sampled_dot(codes, source, W_dec),
                segment_sum(codes, codes.values, source),
            )
        )
    for dense, sparse in zip(*results, strict=True):
        torch.testing.assert_close(dense, sparse, rtol=1e-5, atol=1e-5)


def test_the_route_changes_at_the_stated_share_of_active_entries(make_codes: Callable[..., Codes]) -> None:
    mask = torch.zeros(10, 100, dtype=torch.bool)
    mask.view(-1)[: int(DENSE_FROM * 1000)] = True
    assert is_dense(make_codes(10, 100, mask=mask))
    mask.view(-1)[0] = False
    assert not is_dense(make_codes(10, 100, mask=mask))
