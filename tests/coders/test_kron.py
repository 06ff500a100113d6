from typing import Any

import pytest
import torch
from torch import Tensor

from unweave.coders import Port, Wiring
from unweave.coders.kron import Kron, KronConfig
from unweave.errors import UserError

from .conftest import At, Check, Make, Selection

N_LATENTS = 63


def _pair(p: Tensor, q: Tensor, n_p: int, n_q: int) -> tuple[Tensor, Tensor]:
    """For every latent, in the order of ids, what its two halves read."""
    heads_p, heads_q = p.unflatten(1, (-1, n_p)), q.unflatten(1, (-1, n_q))
    shape = (-1, heads_p.shape[1], n_p, n_q)
    return heads_p[..., None].expand(shape).flatten(1), heads_q[:, :, None].expand(shape).flatten(1)


def _root(p: Tensor, q: Tensor) -> Tensor:
    """sqrt(p q) where both are positive, with slopes of at most 10 instead of its own."""
    a, b = p.detach(), q.detach()
    both = (a > 0) & (b > 0)
    slope_p = torch.where(both, 0.5 * (b / a).abs().sqrt(), torch.zeros_like(a)).clamp(max=10)
    slope_q = torch.where(both, 0.5 * (a / b).abs().sqrt(), torch.zeros_like(a)).clamp(max=10)
    z = torch.where(both, (a * b).abs().sqrt(), torch.zeros_like(a))
    return z + slope_p * (p - a) + slope_q * (q - b)


def _latents(p: dict[str, Tensor], x: Tensor, n_p: int, n_q: int) -> Tensor:
    return _root(*_pair(x @ p["W_p"].T + p["b_p"], x @ p["W_q"].T + p["b_q"], n_p, n_q))


@pytest.mark.parametrize(("n_p", "n_q"), [(3, 3), (1, 9), (7, 9), (1, 1), (3, 7)])
@pytest.mark.parametrize("k", [1, 5, N_LATENTS])
@pytest.mark.parametrize("centre", [True, False])
def test_losses_and_gradients_are_those_of_the_dense_formulas(
    make_coder: Make, agree_with_aux: Check, top_k: Selection, centre: bool, k: int, n_p: int, n_q: int
) -> None:
    coder = make_coder("kron", k=k, k_aux=4, n_p=n_p, n_q=n_q, centre=centre)
    agree_with_aux(coder, lambda pre: [top_k(pre, k)], centre=centre, read=lambda p, rows: _latents(p, rows, n_p, n_q))


def test_what_is_written_may_be_something_else_than_what_is_read(
    make_coder: Make, agree_with_aux: Check, top_k: Selection
) -> None:
    wiring = Wiring.transcoder(Port("in", 7), Port("out", 5), skip=True)
    coder, y = make_coder("kron", wiring, k=7, k_aux=4, n_p=3, n_q=3), torch.randn(100, 5, dtype=torch.float64)
    agree_with_aux(coder, lambda pre: [top_k(pre, 7)], y, centre=False, read=lambda p, rows: _latents(p, rows, 3, 3))


@pytest.mark.parametrize("k", [1, 5, 32, 200])
def test_the_heads_that_are_left_out_hold_none_of_the_largest_latents(top_k: Selection, k: int) -> None:
    coder = Kron(KronConfig(n_latents=720, k=k, n_p=4, n_q=3), Wiring.sae(7)).double()
    x = torch.randn(63, 7, dtype=torch.float64)
    expected = top_k(_latents(dict(coder.named_parameters()), x, 4, 3), k)
    torch.testing.assert_close(coder.encode(x).dense(), expected.detach(), rtol=1e-12, atol=0)


def test_ids_values_and_slopes_by_hand(at: At) -> None:
    coder = Kron(KronConfig(n_latents=8, k=2, n_p=1, n_q=2), Wiring.sae(2)).double()
    with torch.no_grad():
        coder.W_p.zero_()
        coder.W_q.zero_()
        coder.W_p[1] = torch.tensor([1.0, 0.0])
        coder.W_q[2:4] = torch.tensor([[0.0, 1.0], [0.0, 4.0]])
        coder.W_p[3] = torch.tensor([1.0, 0.0])
        coder.W_q[6:8] = torch.tensor([[0.0, -1.0], [-1.0, 0.0]])
        coder.W_dec.zero_()
    x = torch.tensor([[9.0, 1.0]], dtype=torch.float64)
    # head 1 has p = 9, q = (1, 4), so its latents 2 and 3 have 3 and 6; head 3 has no positive q, the others no p
    codes = coder.loss(x, x, at()).codes
    assert codes.latent_ids.tolist() == [2, 3]
    assert codes.values.tolist() == [3.0, 6.0]
    codes.values.sum().backward()
    # dz/dp = sqrt(q/p)/2 = 1/6 and 1/3, dz/dq = sqrt(p/q)/2 = 3/2 and 3/4
    torch.testing.assert_close(coder.b_p.grad, torch.tensor([0.0, 0.5, 0.0, 0.0]).double())
    torch.testing.assert_close(coder.b_q.grad, torch.tensor([0.0, 0.0, 1.5, 0.75, 0.0, 0.0, 0.0, 0.0]).double())


def test_the_slope_near_zero_is_at_most_ten(at: At) -> None:
    coder = Kron(KronConfig(n_latents=1, k=1, n_p=1, n_q=1), Wiring.sae(1)).double()
    for q, slope in [(1.0, 0.5), (256.0, 8.0), (1e4, 10.0), (1e12, 10.0)]:
        with torch.no_grad():
            coder.W_p.fill_(1.0)
            coder.W_q.fill_(q)
        coder.zero_grad()
        coder.loss(torch.ones(1, 1).double(), torch.ones(1, 1).double(), at()).codes.values.sum().backward()
        assert coder.b_p.grad.item() == pytest.approx(slope)
        assert coder.b_q.grad.item() == pytest.approx(0.5 * q**-0.5)


def test_an_encoder_of_h_times_a_plus_b_rows_serves_h_a_b_latents() -> None:
    coder = Kron(KronConfig(n_latents=720, k=5, n_p=4, n_q=3), Wiring.sae(7))
    shapes = {name: tuple(p.shape) for name, p in coder.named_parameters()}
    assert shapes == {"W_p": (240, 7), "b_p": (240,), "W_q": (180, 7), "b_q": (180,), "W_dec": (720, 7), "b_dec": (7,)}


def test_a_latent_starts_to_write_what_its_halves_read() -> None:
    coder = Kron(KronConfig(n_latents=12, k=5, n_p=2, n_q=3), Wiring.sae(7))
    along = coder.W_p[2 * 1 + 1] + coder.W_q[3 * 1 + 2]  # head 1, i = 1, j = 2
    torch.testing.assert_close(coder.W_dec[(1 * 2 + 1) * 3 + 2], along / along.norm())
    torch.testing.assert_close(coder.W_dec.norm(dim=1), torch.ones(12))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k needs.*k=0"),
        ({"k": 64}, "k needs.*k=64"),
        ({"n_p": 0}, "at least 1, got 0 and 3"),
        ({"n_q": -1}, "at least 1, got 3 and -1"),
        ({"n_p": 4}, "multiple of n_p . n_q = 12, got 63"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        KronConfig(**{"n_latents": N_LATENTS, "k": 5, "n_p": 3, "n_q": 3} | settings)
