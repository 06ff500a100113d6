import pytest
import torch
from torch import Tensor

from unweave.coders import Port, Wiring
from unweave.coders.gated import Gated, GatedConfig
from unweave.errors import UserError

from .conftest import At, Check, Make


def _plain(p: dict[str, Tensor], x: Tensor, y: Tensor, centre: bool, paper: bool, l1: float) -> dict[str, Tensor]:
    u = (x - p["b_dec"] if centre else x) @ p["W_enc"].T
    pi = u + p["b_enc"]
    f = (pi > 0) * torch.relu(torch.exp(p["r_mag"]) * u + p["b_mag"])
    W_dec, b_dec = p["W_dec"], p["b_dec"]
    skip = x @ p["W_skip"].T if "W_skip" in p else torch.zeros_like(y)
    y_hat = f @ W_dec + b_dec + skip
    size = torch.relu(pi)
    if paper:
        y_gate = size @ W_dec.detach() + b_dec.detach() + skip.detach()
    else:
        y_gate = size @ W_dec + b_dec + skip
        size = size * (W_dec**2).sum(1).sqrt()
    return {
        "mse": ((y - y_hat) ** 2).sum(1).mean(),
        "gate_mse": ((y - y_gate) ** 2).sum(1).mean(),
        "l1": l1 * size.sum(1).mean(),
    }


@pytest.mark.parametrize("bias", [0.0, -3.0, -100.0], ids=["dense codes", "sparse codes", "no codes"])
@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("variant", ["paper", "norm_weighted"])
def test_losses_and_gradients_are_those_of_the_dense_formulas(
    make_coder: Make, agree: Check, at: At, x: Tensor, variant: str, centre: bool, bias: float
) -> None:
    coder = make_coder("gated", variant=variant, centre=centre, l1_coefficient=0.7, l1_warm_up=0.2)
    with torch.no_grad():
        coder.b_enc.add_(bias)
        coder.r_mag.add_(0.5 * torch.randn(63))
    for progress, l1 in ((0.02, 0.07), (0.5, 0.7)):
        agree(coder, x, x, at(progress=progress), lambda p, l1=l1: _plain(p, x, x, centre, variant == "paper", l1))


@pytest.mark.parametrize("variant", ["paper", "norm_weighted"])
def test_a_skip_path_is_held_fixed_where_the_decoder_is(
    make_coder: Make, agree: Check, at: At, x: Tensor, variant: str
) -> None:
    wiring = Wiring.transcoder(Port("in", 7), Port("out", 5), skip=True)
    coder = make_coder("gated", wiring, variant=variant, l1_coefficient=0.7)
    y = torch.randn(100, 5, dtype=torch.float64)
    agree(coder, x, y, at(), lambda p: _plain(p, x, y, False, variant == "paper", 0.7))


def test_a_latent_reports_its_magnitude_when_its_gate_is_open(at: At) -> None:
    coder = Gated(GatedConfig(n_latents=4, l1_coefficient=0.1, l1_warm_up=0.0), Wiring.sae(1)).double()
    with torch.no_grad():
        coder.W_enc.copy_(torch.tensor([[1.0], [1.0], [1.0], [1.0]]))
        coder.W_dec.copy_(torch.tensor([[1.0], [1.0], [-1.0], [1.0]]))
        coder.b_enc.copy_(torch.tensor([-1.0, -3.0, 0.0, 0.0]))
        coder.r_mag.copy_(torch.tensor([2.0, 1.0, 1.0, 1.0]).log())
        coder.b_mag.copy_(torch.tensor([0.5, 0.0, -1.0, -2.5]))
    x = torch.tensor([[2.0]], dtype=torch.float64)
    # gates (1, -1, 2, 2), magnitudes (4.5, 2, 1, -0.5): latents 0 and 2 are active; y_hat = 4.5 - 1
    codes = coder.encode(x)
    assert codes.latent_ids.tolist() == [0, 2]
    torch.testing.assert_close(codes.values, torch.tensor([4.5, 1.0], dtype=torch.float64))
    losses = coder.loss(x, x, at()).losses
    assert losses["mse"].item() == pytest.approx(1.5**2)
    assert losses["gate_mse"].item() == pytest.approx((1.0 - 2.0 + 2.0 - 2.0) ** 2)
    assert losses["l1"].item() == pytest.approx(0.1 * 5.0)


def test_the_reconstruction_does_not_teach_the_gate_when_to_open(make_coder: Make, at: At, x: Tensor) -> None:
    coder = make_coder("gated")
    coder.loss(x, x, at()).losses["mse"].backward()
    assert coder.b_enc.grad is None or coder.b_enc.grad.abs().max() < 1e-12
    assert coder.b_mag.grad.abs().max() > 1e-3


def test_without_a_centre_both_paths_start_about_the_mean_row(make_coder: Make) -> None:
    coder = Gated(GatedConfig(n_latents=63, centre=False), Wiring.sae(7)).double()
    x = torch.randn(100, 7, dtype=torch.float64) + 5.0
    coder.start_from(x, x)
    mean = x.mean(0) @ coder.W_enc.T
    torch.testing.assert_close(coder.b_enc, -mean)
    torch.testing.assert_close(coder.b_mag, -mean)


@pytest.mark.parametrize(("setting", "value"), [("l1_coefficient", -0.1), ("l1_warm_up", -0.1), ("l1_warm_up", 1.1)])
def test_a_setting_out_of_range_is_named_with_its_value(setting: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"coder\.{setting}.*{value}"):
        GatedConfig(**{setting: value})


def test_free_decoder_norms_belong_to_the_norm_weighted_form() -> None:
    assert GatedConfig(variant="norm_weighted").decoder_norm == "free"
    with pytest.raises(UserError, match="decoder_norm"):
        GatedConfig(decoder_norm="free")
