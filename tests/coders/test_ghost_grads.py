import pytest
import torch
from torch import Tensor

from .conftest import At, Check, Make


@pytest.mark.parametrize("n_dead", [1, 20, 63])
@pytest.mark.parametrize("centre", [True, False])
def test_losses_and_gradients_are_those_of_the_dense_formulas(
    make_coder: Make, agree: Check, at: At, x: Tensor, centre: bool, n_dead: int
) -> None:
    coder = make_coder("relu", ghost_grads=True, centre=centre)
    dead = torch.randperm(63)[:n_dead].sort().values

    def plain(p: dict[str, Tensor]) -> dict[str, Tensor]:
        pre = (x - p["b_dec"] * centre) @ p["W_enc"].T + p["b_enc"]
        f = torch.relu(pre)
        e = x - f @ p["W_dec"] - p["b_dec"]
        mse = (e**2).sum(1).mean()
        pre_of_dead = (x - p["b_dec"].detach() * centre) @ p["W_enc"][dead].T + p["b_enc"][dead]
        g = torch.exp(pre_of_dead) @ p["W_dec"][dead]
        half = e.detach().norm(dim=1) / (2 * g.detach().norm(dim=1))
        ghost = ((e.detach() - half[:, None] * g) ** 2).sum(1).mean()
        return {"mse": mse, "l1": 0.1 * f.sum(1).mean(), "ghost": ghost * (mse / ghost).detach()}

    agree(coder, x, x, at(*dead.tolist()), plain)


def test_the_loss_is_as_large_as_the_mean_squared_error_and_moves_only_the_dead(
    make_coder: Make, at: At, x: Tensor
) -> None:
    coder = make_coder("relu", ghost_grads=True)
    losses = coder.loss(x, x, at(2, 50)).losses
    assert losses["ghost"].item() == pytest.approx(losses["mse"].item(), rel=1e-12)
    losses["ghost"].backward()
    for parameter in (coder.W_enc, coder.b_enc, coder.W_dec):
        moved = parameter.grad.reshape(63, -1).abs().sum(1).nonzero().flatten()
        assert moved.tolist() == [2, 50]
    assert coder.b_dec.grad is None


@pytest.mark.parametrize("bias", [-900.0, 900.0])
def test_exponentials_neither_overflow_nor_vanish(make_coder: Make, at: At, x: Tensor, bias: float) -> None:
    coder = make_coder("relu", ghost_grads=True)
    with torch.no_grad():
        coder.b_enc[[2, 50]] = bias
    loss = coder.loss(x, x, at(2, 50)).losses["ghost"]
    loss.backward()
    assert loss.isfinite()
    assert coder.W_enc.grad.isfinite().all()
    assert (coder.W_enc.grad[[2, 50]].abs().sum(1) > 0).all()


def test_without_dead_latents_or_without_asking_there_is_no_such_loss(make_coder: Make, at: At, x: Tensor) -> None:
    assert "ghost" not in make_coder("relu", ghost_grads=True).loss(x, x, at()).losses
    assert "ghost" not in make_coder("relu").loss(x, x, at(2)).losses
