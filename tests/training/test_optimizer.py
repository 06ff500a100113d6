"""The optimizer of a coder against torch's Adam with its own clipping, and projection and norms written out."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from unweave.coders import Port, SparseCoder, Wiring
from unweave.coders.topk import TopK, TopKConfig
from unweave.training.optimizer import CoderAdam

LR, BETAS = 0.02, (0.9, 0.99)
NORMS = ("unit", "free", "at_most_one")


def _coder(decoder_norm: Any = "unit", n_latents: int = 63, width: int = 7) -> SparseCoder:
    """A skip transcoder, which has every parameter that there is, with unequal decoder rows where they may be."""
    wiring = Wiring.transcoder(Port("in", 9), Port("out", width), skip=True)
    coder = TopK(TopKConfig(n_latents=n_latents, k=4, decoder_norm=decoder_norm), wiring).double()
    with torch.no_grad():
        if decoder_norm != "unit":
            coder.W_dec.mul_(0.2 + 0.8 * torch.rand(n_latents, 1, dtype=torch.float64))
        coder.b_enc.normal_()
        coder.W_skip.normal_()
    return coder


def _gradients(coder: SparseCoder, scale: float) -> dict[str, Tensor]:
    return {name: scale * torch.randn_like(parameter) for name, parameter in coder.named_parameters()}


def _give(coder: SparseCoder, gradients: dict[str, Tensor]) -> None:
    for name, parameter in coder.named_parameters():
        parameter.grad = gradients[name].clone()


@pytest.mark.parametrize("clip", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("decoder_norm", NORMS)
def test_steps_are_those_of_torch_with_projection_and_norms_written_out(decoder_norm: str, clip: float) -> None:
    torch.manual_seed(7)
    ours = _coder(decoder_norm)
    torch.manual_seed(7)
    plain = _coder(decoder_norm)
    optimizer = CoderAdam(ours, BETAS)
    adam = torch.optim.Adam(plain.parameters(), lr=LR, betas=BETAS)
    for step in range(20):
        gradients = _gradients(ours, scale=10.0 ** (step % 3 - 2))
        _give(ours, gradients), _give(plain, gradients)
        norm = optimizer.step(LR, clip)

        W_dec = plain.W_dec
        if decoder_norm == "unit":
            W_dec.grad -= (W_dec.grad * W_dec).sum(1, keepdim=True) * W_dec.detach()
        by_hand = torch.nn.utils.clip_grad_norm_(plain.parameters(), clip or math.inf)
        adam.step()
        with torch.no_grad():
            lengths = W_dec.norm(dim=1, keepdim=True)
            if decoder_norm == "unit":
                W_dec /= lengths
            elif decoder_norm == "at_most_one":
                W_dec /= lengths.clamp(min=1.0)
        assert norm.item() == pytest.approx(by_hand.item(), rel=1e-9)
        for (name, a), b in zip(ours.named_parameters(), plain.parameters(), strict=True):
            # torch divides by the norm plus 1e-6
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")


def test_the_learning_rate_is_that_of_the_step() -> None:
    """With no memory, Adam moves every number by the learning rate."""
    coder = _coder()
    optimizer = CoderAdam(coder, (0.0, 0.0))
    for rate in (0.1, 0.003, 0.0):
        before = coder.b_dec.detach().clone()
        _give(coder, _gradients(coder, 1.0))
        optimizer.step(rate, 0.0)
        torch.testing.assert_close((coder.b_dec - before).abs(), torch.full_like(before, rate), rtol=1e-6, atol=1e-12)


def test_rows_of_norm_at_most_one_may_shrink_and_never_grow_beyond_it() -> None:
    coder = _coder("at_most_one")
    optimizer = CoderAdam(coder, BETAS)
    before = coder.W_dec.norm(dim=1).detach()
    inwards = torch.where(torch.arange(63) % 2 == 0, 1.0, -1.0)[:, None]
    for _ in range(30):
        coder.W_dec.grad = inwards * coder.W_dec.detach()
        optimizer.step(LR, 0.0)
    after = coder.W_dec.norm(dim=1)
    assert (after[::2] < 0.9 * before[::2]).all()
    assert (after[1::2] >= before[1::2]).all()
    assert (after <= 1 + 1e-12).all() and (after > 1 - 1e-9).any()


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("decoder_norm", NORMS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e200])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float, decoder_norm: str, clip: float) -> None:
    """In whatever parameter it is; the last is a gradient whose norm overflows."""
    coder = _coder(decoder_norm)
    optimizer = CoderAdam(coder, BETAS)
    _give(coder, _gradients(coder, 1.0))
    assert optimizer.step(LR, clip).isfinite()
    for name, _ in coder.named_parameters():
        weights = {n: p.detach().clone() for n, p in coder.named_parameters()}
        moments = {n: (m.mean.clone(), m.square.clone()) for n, m in optimizer.moments.items()}
        gradients = _gradients(coder, 1.0)
        gradients[name].view(-1)[5] = bad
        _give(coder, gradients)
        assert not optimizer.step(LR, clip).isfinite()
        for n, parameter in coder.named_parameters():
            assert torch.equal(parameter, weights[n]), (name, n)
            assert torch.equal(optimizer.moments[n].mean, moments[n][0]), (name, n)
            assert torch.equal(optimizer.moments[n].square, moments[n][1]), (name, n)


def test_gradients_are_dropped_after_the_step_and_parameters_without_one_stay() -> None:
    coder = _coder()
    optimizer = CoderAdam(coder, BETAS)
    before = {name: parameter.detach().clone() for name, parameter in coder.named_parameters()}
    coder.b_dec.grad = torch.ones_like(coder.b_dec)
    optimizer.step(LR, 1.0)
    for name, parameter in coder.named_parameters():
        assert parameter.grad is None
        assert torch.equal(parameter, before[name]) == (name != "b_dec")


@pytest.mark.parametrize("width", [7, 63])
def test_forgetting_latents_clears_their_moments_and_no_others(width: int) -> None:
    """Also where what is written is as wide as there are latents."""
    coder = _coder(width=width)
    optimizer = CoderAdam(coder, BETAS)
    _give(coder, _gradients(coder, 1.0))
    optimizer.step(LR, 0.0)
    dead = torch.tensor([0, 7, 62])
    living = torch.tensor([i for i in range(63) if i not in (0, 7, 62)])
    optimizer.forget_rows(dead)
    for name in ("W_enc", "b_enc", "W_dec"):
        for moment in (optimizer.moments[name].mean, optimizer.moments[name].square):
            assert not moment[dead].any(), name
            assert (moment[living] != 0).all(), name
    for name in ("b_dec", "W_skip"):
        assert (optimizer.moments[name].mean != 0).all() and (optimizer.moments[name].square != 0).all(), name
