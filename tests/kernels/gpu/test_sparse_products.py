"""Sums and products over active entries on the path for GPUs, values and gradients against the plain definitions."""

from collections.abc import Callable

import pytest
import torch

from unweave.kernels import run_sum
from unweave.kernels.latent_values import latent_sum, latent_values, row_sum
from unweave.kernels.sampled_dot import reference as plain_dot
from unweave.kernels.sampled_dot import sampled_dot
from unweave.kernels.segment_sum import reference as plain_sum
from unweave.kernels.segment_sum import segment_sum
from unweave.kernels.sparse_decode import reference as plain_decode
from unweave.kernels.sparse_decode import sparse_decode
from unweave.types import Codes

from ..conftest import assert_same, double

WIDTH = 100
"""Two blocks, the second of which is not full."""


def test_decode_and_its_gradients_are_those_of_the_reference(codes: Codes) -> None:
    weight, cotangent = double(codes.n_latents, WIDTH), double(codes.n_rows, WIDTH)
    results = []
    for decode in (sparse_decode, plain_decode.sparse_decode):
        values, W_dec = codes.values.clone().requires_grad_(), weight.clone().requires_grad_()
        out = decode(codes.with_values(values), W_dec)
        results.append((out, *torch.autograd.grad(out, (values, W_dec), cotangent)))
    for ours, plain in zip(*results, strict=True):
        assert_same(ours, plain)


def test_the_products_are_those_of_the_reference(codes: Codes) -> None:
    weights, rows, latents = double(len(codes.values)), double(codes.n_rows, 7), double(codes.n_latents, 7)
    assert_same(segment_sum(codes, weights, rows), plain_sum.segment_sum(codes, weights, rows))
    assert_same(sampled_dot(codes, rows, latents), plain_dot.sampled_dot(codes, rows, latents))


@pytest.mark.parametrize("piece", [3, 16])
def test_long_runs_add_up_from_pieces(codes: Codes, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(run_sum, "PIECE", piece)
    weights, rows = double(len(codes.values)), double(codes.n_rows, 7)
    assert_same(segment_sum(codes, weights, rows), plain_sum.segment_sum(codes, weights, rows))


def test_pieces_are_where_a_latent_fires_on_most_rows(make_codes: Callable[..., Codes]) -> None:
    mask = torch.rand(500, 7) < 0.01
    mask[:, 3] = torch.rand(500) < 0.9
    codes = make_codes(500, 7, mask=mask)
    assert len(codes.values) > 3 * run_sum.PIECE
    rows = double(500, 3)
    assert_same(segment_sum(codes, codes.values, rows), plain_sum.segment_sum(codes, codes.values, rows))


def test_what_an_explicit_zero_points_at_is_never_read(make_codes: Callable[..., Codes]) -> None:
    codes = make_codes(7, 63, 0.2)
    codes.values[codes.latent_ids % 3 == 0] = 0.0
    W_dec = double(63, 7)
    plain = plain_decode.sparse_decode(codes, W_dec)
    W_dec[::3] = torch.nan
    assert_same(sparse_decode(codes, W_dec), plain)


def test_gradcheck_agrees_with_sparse_decode(make_codes: Callable[..., Codes]) -> None:
    codes = make_codes(3, 7, 0.3)
    values, W_dec = codes.values.clone().requires_grad_(), double(7, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda v, w: sparse_decode(codes.with_values(v), w), (values, W_dec))


def test_gradients_that_are_views_of_one_number_are_read_as_such(make_codes: Callable[..., Codes]) -> None:
    codes = make_codes(7, 63)
    values, W_dec = codes.values.clone().requires_grad_(), double(63, 7).requires_grad_()
    ours = torch.autograd.grad(sparse_decode(codes.with_values(values), W_dec).sum(), (values, W_dec))
    plain = torch.autograd.grad(plain_decode.sparse_decode(codes.with_values(values), W_dec).sum(), (values, W_dec))
    assert_same(ours[0], plain[0]), assert_same(ours[1], plain[1])


def test_sums_over_latents_and_rows_are_those_of_the_dense_matrix(codes: Codes) -> None:
    assert_same(latent_sum(codes, codes.values), codes.dense().sum(0))
    values = codes.values.clone().requires_grad_()
    sums = row_sum(codes, values)
    assert_same(sums, codes.dense().sum(1))
    cotangent = double(codes.n_rows)
    assert_same(torch.autograd.grad(sums, values, cotangent)[0], cotangent[codes.row_ids])


def test_a_number_of_each_latent_gets_the_sum_over_its_entries_as_gradient(codes: Codes) -> None:
    per_latent, cotangent = double(codes.n_latents).requires_grad_(), double(len(codes.values))
    at_entries = latent_values(codes, per_latent)
    assert torch.equal(at_entries, per_latent[codes.latent_ids])
    (ours,) = torch.autograd.grad(at_entries, per_latent, cotangent)
    assert_same(ours, codes.with_values(cotangent).dense().sum(0))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_shorter_numbers_are_summed_in_single_precision(
    make_codes: Callable[..., Codes], dtype: torch.dtype, tolerance: float
) -> None:
    codes = make_codes(31, 15, 0.5)
    codes = codes.with_values(codes.values.to(dtype))
    exact = codes.with_values(codes.values.double())
    W, x = torch.randn(15, WIDTH).to(dtype), torch.randn(31, WIDTH).to(dtype)
    pairs = [
        (sparse_decode(codes, W), plain_decode.sparse_decode(exact, W.double())),
        (sampled_dot(codes, x, W), plain_dot.sampled_dot(exact, x.double(), W.double())),
        (segment_sum(codes, codes.values, x), plain_sum.segment_sum(exact, exact.values, x.double())),
        (latent_sum(codes, codes.values), exact.dense().sum(0)),
    ]
    for ours, plain in pairs:
        assert ours.dtype == dtype
        # relative to the size of the result alone: a sum in the short type would be off by several times that
        torch.testing.assert_close(ours.double(), plain, rtol=tolerance, atol=tolerance)
