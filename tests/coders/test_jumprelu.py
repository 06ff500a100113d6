from typing import Any

import pytest
import torch
from torch import Tensor

from unweave.coders import Port, Wiring
from unweave.coders.jumprelu import JumpRelu, JumpReluConfig
from unweave.errors import UserError

from .conftest import At, Check, Make

N_ROWS, N_LATENTS = 100, 63


def _plain(
    p: dict[str, Tensor], x: Tensor, y: Tensor, config: JumpReluConfig, theta_0: Tensor, dead: Tensor, weight: float
) -> dict[str, Tensor]:
    """The published formulas with dense matrices; each made-up gradient is a term whose value is 0."""
    h = (x - p["b_dec"] if config.centre else x) @ p["W_enc"].T + p["b_enc"]
    published = config.variant == "anthropic"
    theta = theta_0 * torch.exp(p["log_growth"]) if published else p["threshold"]
    now = theta.detach()
    near = ((h.detach() - now).abs() < config.bandwidth / 2) / config.bandwidth
    on = (h.detach() > now).double()
    if published:  # df/dt = -exp(t) / epsilon
        f = h * on - near * now * (p["log_growth"] - p["log_growth"].detach())
    else:  # df/dtheta = -theta / epsilon
        f = h * on - near * now * (theta - now)
    step = on - near * (theta - now)  # d step/dtheta = -1 / epsilon
    norms = (p["W_dec"] ** 2).sum(1).sqrt()
    skip = x @ p["W_skip"].T if "W_skip" in p else 0.0
    y_hat = f @ p["W_dec"] + p["b_dec"] + skip
    match config.penalty:
        case "step":
            penalty = step.sum(1)
        case "tanh":
            penalty = torch.tanh(config.tanh_scale * f * norms).sum(1)
        case _:
            penalty = (step.sum(1) / config.target_l0 - 1) ** 2
    losses = {"mse": ((y - y_hat) ** 2).sum(1).mean(), "sparsity": weight * penalty.mean()}
    pre_act = torch.relu(theta - h) * norms
    if config.pre_act_dead_only:
        pre_act = pre_act[:, dead]
    if config.pre_act_coefficient and pre_act.shape[1]:
        losses["pre_act"] = config.pre_act_coefficient * pre_act.sum(1).mean()
    return losses


@pytest.mark.parametrize("bandwidth", [0.1, 2.0], ids=["narrow", "wide"])
@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("pre_act", ["none", "all", "dead"])
@pytest.mark.parametrize("penalty", ["step", "tanh", "target_l0"])
@pytest.mark.parametrize("variant", ["gdm", "anthropic"])
def test_losses_and_gradients_are_those_of_the_dense_formulas(
    make_coder: Make,
    agree: Check,
    at: At,
    x: Tensor,
    variant: str,
    penalty: str,
    pre_act: str,
    centre: bool,
    bandwidth: float,
) -> None:
    coder = make_coder(
        "jumprelu",
        variant=variant,
        penalty=penalty,
        bandwidth=bandwidth,
        centre=centre,
        threshold_start=0.5,
        sparsity_coefficient=0.7,
        sparsity_warm_up=0.2,
        pre_act_coefficient=0.0 if pre_act == "none" else 0.3,
        pre_act_dead_only=pre_act == "dead",
    )
    assert isinstance(coder, JumpRelu)
    theta_0, dead = coder.threshold.detach().clone(), torch.tensor([0, 9, 40])
    for progress, weight in ((0.1, 0.35), (0.5, 0.7)):
        agree(
            coder,
            x,
            x,
            at(0, 9, 40, progress=progress),
            lambda p, weight=weight: _plain(p, x, x, coder.config, theta_0, dead, weight),
        )


@pytest.mark.parametrize("variant", ["gdm", "anthropic"])
@pytest.mark.parametrize("bias", [-100.0, 10.0], ids=["nothing active", "everything active"])
def test_the_formulas_hold_where_nothing_or_everything_is_active(
    make_coder: Make, agree: Check, at: At, x: Tensor, variant: str, bias: float
) -> None:
    coder = make_coder("jumprelu", variant=variant, penalty="tanh", pre_act_coefficient=0.3, sparsity_warm_up=0.0)
    with torch.no_grad():
        coder.b_enc.add_(bias)
        coder.threshold.abs_()
    theta_0 = coder.threshold.detach().clone()
    weight = coder.config.sparsity_coefficient
    agree(coder, x, x, at(), lambda p: _plain(p, x, x, coder.config, theta_0, torch.tensor([]), weight))


def test_a_skip_transcoder_follows_the_formulas(make_coder: Make, agree: Check, at: At, x: Tensor) -> None:
    wiring = Wiring.transcoder(Port("in", 7), Port("out", 5), skip=True)
    coder = make_coder("jumprelu", wiring, variant="anthropic", sparsity_warm_up=0.0)
    theta_0, y = coder.threshold.clone(), torch.randn(100, 5, dtype=torch.float64)
    agree(coder, x, y, at(), lambda p: _plain(p, x, y, coder.config, theta_0, torch.tensor([]), 0.5))


def _scalar(**settings: Any) -> JumpRelu:
    """One latent that reads and writes one number as it is, with threshold 1 and bandwidth 1."""
    settings = {
        "threshold_start": 1.0,
        "bandwidth": 1.0,
        "sparsity_coefficient": 0.5,
        "sparsity_warm_up": 0.0,
    } | settings
    coder = JumpRelu(JumpReluConfig(n_latents=1, **settings), Wiring.transcoder(Port("in", 1), Port("out", 1))).double()
    with torch.no_grad():
        coder.W_enc.fill_(1.0)
        coder.W_dec.fill_(1.0)
    return coder


@pytest.mark.parametrize(
    ("h", "y", "mse", "gradient"),
    [
        (1.2, 0.0, 1.44, -2.4 - 0.5),  # active: dmse/df = 2.4, df/dtheta = -1, and the penalty -0.5
        (0.7, 1.0, 1.0, 2.0 - 0.5),  # silent but near: the error asks for it, the penalty does not
        (0.4, 1.0, 1.0, 0.0),  # out of the window
        (1.6, 1.0, 0.36, 0.0),
    ],
)
def test_the_gradient_of_a_threshold_by_hand(at: At, h: float, y: float, mse: float, gradient: float) -> None:
    coder = _scalar()
    row = torch.tensor([[h]], dtype=torch.float64)
    losses = coder.loss(row, torch.full_like(row, y), at()).losses
    assert losses["mse"].item() == pytest.approx(mse)
    assert losses["sparsity"].item() == pytest.approx(0.5 * (h > 1))
    (losses["mse"] + losses["sparsity"]).backward()
    assert coder.threshold.grad.item() == pytest.approx(gradient)
    by_row = 2 * (h - y) * (h > 1)
    assert coder.b_enc.grad.item() == pytest.approx(by_row), "the step penalty moves thresholds alone"


def test_the_penalty_of_a_target_by_hand(at: At) -> None:
    coder = _scalar(penalty="target_l0", target_l0=2.0)
    rows = torch.tensor([[1.2], [0.4], [3.0]], dtype=torch.float64)
    loss = coder.loss(rows, rows, at()).losses["sparsity"]
    assert loss.item() == pytest.approx(0.5 * (0.25 + 1.0 + 0.25) / 3)  # rows with 1, 0 and 1 latents, wanted 2
    loss.backward()
    # only the first row is near: 0.5 * 2 (1/2 - 1) / 2 * (-1) / 3
    assert coder.threshold.grad.item() == pytest.approx(0.25 / 3)


def test_the_pull_on_silent_latents_by_hand(at: At) -> None:
    coder = _scalar(pre_act_coefficient=0.1, decoder_norm="free")
    with torch.no_grad():
        coder.W_dec.fill_(-2.0)
    rows = torch.tensor([[0.2], [1.5], [-3.0]], dtype=torch.float64)
    loss = coder.loss(rows, rows, at()).losses["pre_act"]
    assert loss.item() == pytest.approx(0.1 * 2 * (0.8 + 4.0) / 3)
    loss.backward()
    assert coder.b_enc.grad.item() == pytest.approx(-0.1 * 2 * 2 / 3)
    assert coder.threshold.grad.item() == pytest.approx(0.1 * 2 * 2 / 3)
    assert coder.W_dec.grad.item() == pytest.approx(-0.1 * 4.8 / 3)


def test_the_pull_may_be_on_dead_latents_alone(make_coder: Make, at: At, x: Tensor) -> None:
    coder = make_coder("jumprelu", variant="anthropic", pre_act_dead_only=True)
    assert "pre_act" not in coder.loss(x, x, at()).losses
    coder.loss(x, x, at(2, 50)).losses["pre_act"].backward()
    assert coder.b_enc.grad.nonzero().flatten().tolist() == [2, 50]


def test_only_entries_above_their_threshold_are_active(make_coder: Make, at: At, x: Tensor) -> None:
    coder = make_coder("jumprelu", variant="anthropic", bandwidth=2.0)
    h, theta = x @ coder.W_enc.T + coder.b_enc, coder.thresholds()
    expected = torch.where(h > theta, h, torch.zeros_like(h)).detach()
    torch.testing.assert_close(coder.encode(x).dense(), expected, rtol=1e-12, atol=1e-12)
    step = coder.loss(x, x, at())
    torch.testing.assert_close(step.codes.dense().detach(), expected, rtol=1e-12, atol=1e-12)
    assert (step.codes.values == 0).any(), "entries near their threshold are kept, as zeros"


def test_a_threshold_that_was_stepped_below_zero_counts_as_zero(make_coder: Make, at: At, x: Tensor) -> None:
    coder = make_coder("jumprelu")
    with torch.no_grad():
        coder.threshold[:30] = -0.4
    assert (coder.encode(x).values > 0).all()
    coder.loss(x, x, at())
    assert (coder.threshold[:30] == 0).all()


def test_thresholds_of_the_anthropic_form_grow_by_the_exponential() -> None:
    coder = JumpRelu(JumpReluConfig(variant="anthropic", n_latents=3), Wiring.sae(2))
    torch.testing.assert_close(coder.thresholds().detach(), torch.full((3,), 0.1))
    with torch.no_grad():
        coder.log_growth.copy_(torch.tensor([0.0, 2.0, -1.0]))
    torch.testing.assert_close(coder.thresholds().detach(), torch.tensor([0.1, 0.73890561, 0.03678794]))


@pytest.mark.parametrize("start_l0", [1, 13, 62])
def test_every_latent_starts_to_fire_on_the_same_share_of_the_sample(start_l0: int) -> None:
    config = JumpReluConfig(variant="anthropic", n_latents=63, start_l0=start_l0)
    coder = JumpRelu(config, Wiring.sae(7)).double()
    x = torch.randn(6300, 7, dtype=torch.float64) + 2.0
    coder.start_from(x, x)
    fired = torch.bincount(coder.encode(x).latent_ids, minlength=63)
    assert (fired - 100 * start_l0).abs().max() <= 1


def test_the_anthropic_form_starts_uniform_with_a_small_encoder() -> None:
    coder = JumpRelu(JumpReluConfig(variant="anthropic", n_latents=6300), Wiring.sae(16))
    assert coder.W_dec.abs().max().item() == pytest.approx(0.25, rel=1e-3)
    assert coder.W_dec.mean().item() == pytest.approx(0.0, abs=0.01)
    assert coder.W_dec.var().item() == pytest.approx(0.0625 / 3, rel=0.02)
    torch.testing.assert_close(coder.W_enc, coder.W_dec * 16 / 6300)
    other = JumpRelu(
        JumpReluConfig(variant="anthropic", n_latents=6300), Wiring.transcoder(Port("in", 4), Port("out", 16))
    )
    assert other.W_enc.abs().max().item() == pytest.approx(0.5 * 4 / 6300, rel=1e-3)


def test_a_start_in_a_subspace_holds_for_the_small_encoder_too() -> None:
    coder = JumpRelu(JumpReluConfig(variant="anthropic", n_latents=63, active_subspace=2), Wiring.sae(7)).double()
    x = torch.randn(200, 2, dtype=torch.float64) @ torch.randn(2, 7, dtype=torch.float64)
    coder.start_from(x, x)
    assert torch.linalg.matrix_rank(coder.W_dec.detach(), rtol=1e-6) == 2
    torch.testing.assert_close(coder.W_enc, coder.W_dec * 7 / 63)


def test_each_form_brings_its_own_defaults() -> None:
    gdm, anthropic = JumpReluConfig(), JumpReluConfig(variant="anthropic", n_latents=100_000)
    assert (gdm.penalty, gdm.input_scale, gdm.decoder_norm, gdm.centre) == ("step", "unit_square", "free", False)
    assert (gdm.decoder_init_norm, gdm.encoder_init_gain, anthropic.encoder_init_gain) == (0.1, 1.0, 1.0)
    assert JumpReluConfig(decoder_norm="unit").decoder_init_norm == 1.0, "it would be projected"
    assert (gdm.pre_act_coefficient, gdm.start_l0) == (0.0, 0)
    at_width_2500 = JumpRelu(gdm, Wiring.sae(2500)).config
    assert at_width_2500.threshold_start == at_width_2500.bandwidth == pytest.approx(0.001), "as published"
    assert (anthropic.penalty, anthropic.input_scale, anthropic.decoder_norm) == ("tanh", "sqrt_width", "free")
    assert (anthropic.threshold_start, anthropic.bandwidth, anthropic.tanh_scale) == (0.1, 2.0, 4.0)
    assert (anthropic.pre_act_coefficient, anthropic.sparsity_warm_up, anthropic.start_l0) == (3e-6, 1.0, 10_000)
    assert not anthropic.centre


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("sparsity_coefficient", -0.1),
        ("sparsity_warm_up", 1.1),
        ("threshold_start", 0.0),
        ("bandwidth", -1.0),
        ("pre_act_coefficient", -0.1),
        ("start_l0", -1),
        ("start_l0", 63),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(setting: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"coder\.{setting}.*{value}"):
        JumpReluConfig(**{"n_latents": 63, setting: value})


@pytest.mark.parametrize(
    "settings",
    [
        {"target_l0": 20.0},
        {"tanh_scale": 2.0},
        {"penalty": "tanh", "target_l0": 20.0},
        {"variant": "anthropic", "target_l0": 20.0},
        {"pre_act_dead_only": True},
        {"penalty": "target_l0", "target_l0": 0.0},
    ],
)
def test_a_setting_without_effect_is_an_error(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"coder\.(target_l0|tanh_scale|pre_act_dead_only)"):
        JumpReluConfig(**settings)
