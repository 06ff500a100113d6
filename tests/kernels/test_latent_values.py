"""Numbers of latents and rows at active entries, and sums: against loops and against autograd on the dense grid."""

from collections.abc import Callable

import torch

from unweave.kernels.latent_values import latent_sum, latent_values, reference, row_sum
from unweave.types import Codes

from .conftest import double


def test_every_entry_gets_the_number_of_its_latent(codes: Codes) -> None:
    numbers = double(100)
    by_hand = [numbers[latent].item() for latent in codes.latent_ids]
    assert latent_values(codes, numbers).tolist() == by_hand
    assert reference.latent_values(codes, numbers).tolist() == by_hand


def test_the_gradient_of_a_latents_number_is_the_sum_over_its_entries(codes: Codes) -> None:
    ours, plain = (double(100).fill_(0.7).requires_grad_() for _ in range(2))
    cotangent = double(len(codes.values))
    (gradient,) = torch.autograd.grad(latent_values(codes, ours), ours, cotangent)
    (expected,) = torch.autograd.grad(reference.latent_values(codes, plain), plain, cotangent)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)
    by_hand = [float(cotangent[codes.latent_ids == latent].sum()) for latent in range(100)]
    torch.testing.assert_close(gradient, torch.tensor(by_hand, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_gradcheck_agrees_with_latent_values(make_codes: Callable[..., Codes]) -> None:
    codes = make_codes(7, 9, 0.3)
    assert torch.autograd.gradcheck(lambda numbers: latent_values(codes, numbers), double(9).requires_grad_())


def test_sums_over_latents_and_rows_are_those_of_the_dense_grid(codes: Codes) -> None:
    values = double(len(codes.values))
    grid = codes.with_values(values).dense()
    torch.testing.assert_close(latent_sum(codes, values), grid.sum(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(row_sum(codes, values), grid.sum(1), rtol=1e-12, atol=1e-12)


def test_the_gradient_of_a_rows_sum_is_that_of_the_row_at_each_entry(codes: Codes) -> None:
    values = double(len(codes.values)).requires_grad_()
    cotangent = double(codes.n_rows)
    (gradient,) = torch.autograd.grad(row_sum(codes, values), values, cotangent)
    assert gradient.tolist() == [cotangent[row].item() for row in codes.row_ids]


def test_sums_have_the_precision_of_their_values(make_codes: Callable[..., Codes]) -> None:
    codes = make_codes(7, 9, 0.3)
    for dtype in (torch.float32, torch.float64):
        values = codes.values.to(dtype)
        assert latent_sum(codes, values).dtype == row_sum(codes, values).dtype == dtype
