import pytest
import torch
from torch import Tensor

from unweave.coders import Moment
from unweave.coders.relu import Relu, ReluConfig
from unweave.errors import UserError

N_ROWS, N_LATENTS, WIDTH = 100, 63, 7


def _coder(**settings: float) -> Relu:
    coder = Relu(ReluConfig(n_latents=N_LATENTS, **settings), WIDTH).double()
    with torch.no_grad():
        coder.W_enc.add_(0.3 * torch.randn_like(coder.W_enc))
        coder.b_enc.copy_(torch.randn_like(coder.b_enc) - 0.5)
        coder.b_dec.copy_(torch.randn_like(coder.b_dec))
    return coder


def _rows() -> Tensor:
    return torch.randn(N_ROWS, WIDTH, dtype=torch.float64)


def _alive(progress: float) -> Moment:
    return Moment(progress, torch.zeros(N_LATENTS, dtype=torch.bool))


@pytest.mark.parametrize("progress", [0.0, 0.02, 0.2, 0.9])
@pytest.mark.parametrize("bias", [0.0, -3.0], ids=["dense codes", "sparse codes"])
def test_losses_and_gradients_are_those_of_the_dense_formulas(progress: float, bias: float) -> None:
    coder, x = _coder(l1_coefficient=0.7, l1_warm_up=0.2), _rows()
    with torch.no_grad():
        coder.b_enc.add_(bias)
    step = coder.loss(x, _alive(progress))
    (step.losses["mse"] + step.losses["l1"]).backward()

    W_enc, b_enc, W_dec, b_dec = leaves = [p.detach().clone().requires_grad_() for p in coder.parameters()]
    f = torch.relu((x - b_dec.detach()) @ W_enc.T + b_enc)
    mse = ((x - (f @ W_dec + b_dec)) ** 2).sum(1).mean()
    share_of_penalty = {0.0: 0.0, 0.02: 0.1, 0.2: 1.0, 0.9: 1.0}[progress]
    l1 = 0.7 * share_of_penalty * f.sum(1).mean()
    (mse + l1).backward()

    torch.testing.assert_close(step.losses["mse"], mse, rtol=1e-10, atol=0)
    torch.testing.assert_close(step.losses["l1"], l1, rtol=1e-10, atol=1e-14)
    for ours, leaf in zip(coder.parameters(), leaves, strict=True):
        torch.testing.assert_close(ours.grad, leaf.grad, rtol=1e-9, atol=1e-10)


def test_the_penalty_is_whole_from_the_start_without_warm_up() -> None:
    coder, x = _coder(l1_coefficient=0.7, l1_warm_up=0.0), _rows()
    step = coder.loss(x, _alive(0.0))
    assert step.losses["l1"].item() == pytest.approx(0.7 * step.codes.values.sum().item() / N_ROWS)


def test_codes_are_the_positive_preactivations() -> None:
    coder, x = _coder(), _rows()
    expected = torch.relu((x - coder.b_dec) @ coder.W_enc.T + coder.b_enc).detach()
    torch.testing.assert_close(coder.encode(x).dense(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("setting", "value"), [("l1_coefficient", -0.1), ("l1_warm_up", -0.1), ("l1_warm_up", 1.1)])
def test_a_setting_out_of_range_is_named_with_its_value(setting: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"coder\.{setting}.*{value}"):
        ReluConfig(**{setting: value})
