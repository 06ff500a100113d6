import pytest
import torch

from unweave.coders import SparseCoder, architectures
from unweave.training.decoder_norm import remove_radial_gradient, renormalise


@pytest.fixture(params=sorted(architectures()))
def coder(request: pytest.FixtureRequest) -> SparseCoder:
    cls = architectures()[request.param]
    return cls(cls.Config(n_latents=63), 7).double()


def test_the_part_of_the_gradient_along_a_decoder_row_is_removed_and_nothing_else(coder: SparseCoder) -> None:
    gradient = torch.randn_like(coder.W_dec)
    coder.W_dec.grad = gradient.clone()
    remove_radial_gradient(coder)
    for row, before, after in zip(coder.W_dec.detach(), gradient, coder.W_dec.grad, strict=True):
        assert after @ row == pytest.approx(0.0, abs=1e-6)
        torch.testing.assert_close(before - after, (before @ row) * row, rtol=1e-6, atol=1e-6)


def test_a_tangent_gradient_is_left_as_it_is(coder: SparseCoder) -> None:
    row = coder.W_dec.detach()
    tangent = torch.randn_like(row)
    tangent -= (tangent * row).sum(1, keepdim=True) / row.square().sum(1, keepdim=True) * row
    coder.W_dec.grad = tangent.clone()
    remove_radial_gradient(coder)
    torch.testing.assert_close(coder.W_dec.grad, tangent, rtol=1e-6, atol=1e-9)


def test_rows_are_divided_by_their_norm_and_keep_their_direction(coder: SparseCoder) -> None:
    with torch.no_grad():
        coder.W_dec.mul_(torch.rand(63, 1, dtype=torch.float64) * 10 + 0.1)
        before = coder.W_dec.clone()
    renormalise(coder)
    torch.testing.assert_close(coder.W_dec.detach(), before / before.norm(dim=1, keepdim=True), rtol=1e-12, atol=0)
    assert coder.W_dec.requires_grad


def test_a_row_of_zeros_stays_finite(coder: SparseCoder) -> None:
    with torch.no_grad():
        coder.W_dec[7] = 0.0
    renormalise(coder)
    assert torch.equal(coder.W_dec[7], torch.zeros(7, dtype=torch.float64))
