from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unweave.coders import SparseCoder
from unweave.coders.p_anneal import PAnnealConfig, power_at
from unweave.errors import UserError

from .conftest import At, Check, Make


def _sum_of_powers(coder: SparseCoder, x: Tensor, power: float) -> float:
    f = torch.relu((x - coder.b_dec * coder.config.centre) @ coder.W_enc.T + coder.b_enc).detach()
    return (f[f > 0] ** power).sum().item()


@pytest.mark.parametrize("bias", [0.0, -2.0], ids=["dense codes", "sparse codes"])
@pytest.mark.parametrize("centre", [True, False])
def test_losses_and_gradients_are_those_of_the_dense_formulas(
    make_coder: Make, agree: Check, at: At, x: Tensor, centre: bool, bias: float
) -> None:
    coder = make_coder("p_anneal", centre=centre, l_coefficient=0.7, anneal_start=0.2, anneal_steps=4, p_end=0.2)
    with torch.no_grad():
        coder.b_enc.add_(bias)

    def plain_at(power: float, weight: float) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
        def plain(p: dict[str, Tensor]) -> dict[str, Tensor]:
            f = torch.relu((x - p["b_dec"] * centre) @ p["W_enc"].T + p["b_enc"])
            size = torch.where(f > 0, f, 1.0) ** power * (f > 0)
            x_hat = f @ p["W_dec"] + p["b_dec"]
            return {"mse": ((x - x_hat) ** 2).sum(1).mean(), "lp": weight * size.sum(1).mean()}

        return plain

    l1 = _sum_of_powers(coder, x, 1.0)
    agree(coder, x, x, at(progress=0.01), plain_at(1.0, 0.7 * 0.2))
    agree(coder, x, x, at(progress=0.19), plain_at(1.0, 0.7))
    agree(coder, x, x, at(progress=0.3), plain_at(0.8, 0.7 * l1 / _sum_of_powers(coder, x, 0.8)))
    agree(coder, x, x, at(progress=0.99), plain_at(0.2, 0.7 * l1 / _sum_of_powers(coder, x, 0.2)))


def test_the_power_falls_in_equal_steps_to_its_end() -> None:
    config = PAnnealConfig(p_end=0.2, anneal_start=0.5, anneal_steps=4)
    at = {0.0: 1.0, 0.49: 1.0, 0.51: 0.8, 0.62: 0.8, 0.63: 0.6, 0.74: 0.6, 0.76: 0.4, 0.87: 0.4, 0.88: 0.2, 1.0: 0.2}
    assert [power_at(progress, config) for progress in at] == pytest.approx(list(at.values()))


def test_the_penalty_does_not_jump_when_the_power_does(make_coder: Make, at: At, x: Tensor) -> None:
    coder = make_coder("p_anneal", anneal_start=0.2)
    sizes = [coder.loss(x, x, at(progress=p / 100)).losses["lp"].item() for p in range(10, 100, 5)]
    assert sizes == pytest.approx([sizes[0]] * len(sizes), rel=1e-9)


def test_the_weight_follows_the_batches_on_which_the_power_changed(make_coder: Make, at: At) -> None:
    coder = make_coder("p_anneal", anneal_start=0.2, anneal_steps=4, p_end=0.2)
    first, second, third = (torch.randn(100, 7, dtype=torch.float64) for _ in range(3))
    coder.loss(first, first, at(progress=0.21))
    coder.loss(second, second, at(progress=0.25))
    coder.loss(third, third, at(progress=0.45))
    expected = _sum_of_powers(coder, first, 1.0) / _sum_of_powers(coder, first, 0.8)
    expected *= _sum_of_powers(coder, third, 0.8) / _sum_of_powers(coder, third, 0.6)
    assert coder.alpha.item() == pytest.approx(expected, rel=1e-9)


def test_a_batch_in_which_nothing_fires_leaves_the_weight_alone(make_coder: Make, at: At, x: Tensor) -> None:
    coder = make_coder("p_anneal")
    with torch.no_grad():
        coder.b_enc.fill_(-1000.0)
    step = coder.loss(x, x, at(progress=0.9))
    torch.stack(list(step.losses.values())).sum().backward()
    assert coder.alpha.item() == 1.0
    assert step.losses["lp"].item() == 0.0
    assert all(p.grad is None or p.grad.isfinite().all() for p in coder.parameters())


def test_in_single_precision_an_unchanged_power_leaves_the_weight_alone(make_coder: Make, at: At, x: Tensor) -> None:
    coder, x = make_coder("p_anneal").float(), x.float()
    coder.loss(x, x, at(progress=0.35))
    alpha = coder.alpha.clone()
    coder.loss(x[:50] * 2, x[:50] * 2, at(progress=0.351))
    assert torch.equal(coder.alpha, alpha)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("l_coefficient", -0.1),
        ("l_warm_up", 1.1),
        ("p_end", 0.0),
        ("p_end", 1.5),
        ("anneal_start", 1.0),
        ("anneal_start", -0.1),
        ("anneal_steps", 0),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(setting: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"coder\.{setting}.*{value}"):
        PAnnealConfig(**{setting: value})


def test_free_decoder_norms_are_refused() -> None:
    with pytest.raises(UserError, match="decoder_norm"):
        PAnnealConfig(decoder_norm="free")
