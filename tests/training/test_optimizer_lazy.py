"""Adam at beta1 = 0 within a coder's training: torch's Adam with the rest written out, and what it remembers."""

import math

import pytest
import torch
from torch import Tensor

from tests.training.test_optimizer import LR, NORMS, _coder, _give, _gradients
from unweave.coders import SparseCoder
from unweave.training.optimizer import CoderAdam

BETAS = (0.0, 0.99)
PER_ROW = ("W_enc", "W_dec")


def _start(decoder_norm: str) -> SparseCoder:
    """Decoder rows of unit norm have it to the last bits of double precision."""
    torch.manual_seed(7)
    coder = _coder(decoder_norm)
    if decoder_norm == "unit":
        with torch.no_grad():
            coder.W_dec /= coder.W_dec.norm(dim=1, keepdim=True)
    return coder


def _sparse_gradients(coder: SparseCoder, silent: Tensor) -> dict[str, Tensor]:
    gradients = _gradients(coder, 1.0)
    for name in ("W_enc", "b_enc", "W_dec"):
        gradients[name][silent] = 0.0
    return gradients


@pytest.mark.parametrize("clip", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("decoder_norm", NORMS)
def test_steps_are_those_of_torch_and_silent_latents_keep_their_weights(decoder_norm: str, clip: float) -> None:
    ours, plain = _start(decoder_norm), _start(decoder_norm)
    optimizer = CoderAdam(ours, BETAS)
    adam = torch.optim.Adam(plain.parameters(), lr=LR, betas=BETAS)
    for _ in range(100):
        silent = torch.rand(63) < 0.7
        gradients = _sparse_gradients(ours, silent)
        before = {name: ours.get_parameter(name).detach().clone() for name in PER_ROW}
        _give(ours, gradients), _give(plain, gradients)
        norm = optimizer.step(LR, clip)
        for name in PER_ROW:
            assert torch.equal(ours.get_parameter(name)[silent], before[name][silent])

        W_dec = plain.W_dec
        if decoder_norm == "unit":
            W_dec.grad -= (W_dec.grad * W_dec).sum(1, keepdim=True) * W_dec.detach()
        by_hand = torch.stack([p.grad.square().sum() for p in plain.parameters()]).sum().sqrt()
        assert norm.item() == pytest.approx(by_hand.item(), rel=1e-12)
        for parameter in plain.parameters():
            parameter.grad *= clip / by_hand.clamp(min=clip) if clip else 1.0
        adam.step()
        with torch.no_grad():
            lengths = W_dec.norm(dim=1, keepdim=True)
            if decoder_norm != "free":
                W_dec /= lengths if decoder_norm == "unit" else lengths.clamp(min=1.0)
        for (name, a), b in zip(ours.named_parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13, msg=lambda text, n=name: f"{n}: {text}")


def test_no_mean_is_kept_and_only_matrices_count_what_they_missed() -> None:
    coder = _coder()
    kept = {name: list(tensor.shape) for name, tensor in CoderAdam(coder, BETAS).state().items()}
    squares = {f"{name}.square": list(parameter.shape) for name, parameter in coder.named_parameters()}
    assert kept == squares | {"W_enc.missed": [63], "W_dec.missed": [63], "W_skip.missed": [7], "n_steps": []}
    decayed = CoderAdam(coder, BETAS, weight_decay=0.1).state()
    assert decayed.keys() == squares.keys() | {"n_steps"}, "all rows move in every step"


@pytest.mark.parametrize("decoder_norm", NORMS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e200])
def test_a_gradient_that_is_not_finite_changes_nothing_but_the_count_of_steps(bad: float, decoder_norm: str) -> None:
    coder = _coder(decoder_norm)
    optimizer = CoderAdam(coder, BETAS)
    silent = torch.arange(63) % 3 == 0
    _give(coder, _sparse_gradients(coder, silent))
    optimizer.step(LR, 1.0)
    for name in dict(coder.named_parameters()):
        before = {key: tensor.clone() for key, tensor in (coder.state_dict() | optimizer.state()).items()}
        gradients = _sparse_gradients(coder, silent)
        gradients[name].view(-1)[5] = bad
        _give(coder, gradients)
        assert not optimizer.step(LR, 1.0).isfinite()
        for key, tensor in (coder.state_dict() | optimizer.state()).items():
            assert torch.equal(tensor, before[key]) == (key != "n_steps"), (name, key)


def test_a_forgotten_latent_goes_on_as_one_that_never_had_a_gradient() -> None:
    """Its second moment starts from 0 again, whatever it had missed."""
    coder = _coder("free")
    optimizer = CoderAdam(coder, BETAS)
    _give(coder, _gradients(coder, 1.0))
    optimizer.step(LR, 0.0)
    silent = torch.arange(63) < 9
    for _ in range(5):
        _give(coder, _sparse_gradients(coder, silent))
        optimizer.step(LR, 0.0)
    dead = torch.tensor([0, 7, 62])
    optimizer.forget_rows(dead)
    living = torch.tensor([i for i in range(63) if i not in dead.tolist()])
    for name in PER_ROW:
        moments = optimizer.moments[name]
        assert not moments.square[dead].any() and not moments.missed[dead].any()
        assert (moments.square[living] != 0).all()
        assert torch.equal(moments.missed[living], 5 * silent[living].int())
    gradients = _gradients(coder, 1.0)
    _give(coder, gradients)
    optimizer.step(LR, 0.0)
    for name in PER_ROW:
        square = optimizer.moments[name].square[dead]
        torch.testing.assert_close(square, 0.01 * gradients[name][dead].square(), rtol=1e-12, atol=0)
