from typing import Any

import pytest
import torch
from torch import Tensor

from unweave.coders import Wiring
from unweave.coders.topk import TopK, TopKConfig
from unweave.errors import UserError

from .conftest import At, Check, Make, Selection

N_LATENTS = 63


@pytest.mark.parametrize("k", [1, 5, N_LATENTS])
@pytest.mark.parametrize("centre", [True, False])
def test_losses_and_gradients_are_those_of_the_dense_formulas(
    make_coder: Make, agree_with_aux: Check, top_k: Selection, centre: bool, k: int
) -> None:
    coder = make_coder("topk", k=k, k_aux=4, centre=centre)
    agree_with_aux(coder, lambda pre: [top_k(pre, k)], centre=centre)


@pytest.mark.parametrize("multi_k", [2, 4, 100])
def test_multi_topk_adds_an_eighth_of_the_error_with_several_times_k(
    make_coder: Make, agree: Check, top_k: Selection, at: At, x: Tensor, multi_k: int
) -> None:
    def plain(p: dict[str, Tensor]) -> dict[str, Tensor]:
        pre = (x - p["b_dec"]) @ p["W_enc"].T + p["b_enc"]
        few, many = (top_k(pre, k) @ p["W_dec"] + p["b_dec"] for k in (3, min(63, 3 * multi_k)))
        return {"mse": ((x - few) ** 2).sum(1).mean(), "multi": ((x - many) ** 2).sum(1).mean() / 8}

    agree(make_coder("topk", k=3, multi_k=multi_k), x, x, at(), plain)


def test_a_row_and_its_two_largest_latents_by_hand(at: At) -> None:
    coder = TopK(TopKConfig(n_latents=3, k=2), Wiring.sae(2)).double()
    with torch.no_grad():
        coder.W_enc.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        coder.W_dec.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
        coder.b_enc.copy_(torch.tensor([0.0, 0.5, -1.0]))
        coder.b_dec.copy_(torch.tensor([1.0, 1.0]))
    x = torch.tensor([[3.0, 2.0]], dtype=torch.float64)
    # x - b_dec = (2, 1), pre = (2, 1.5, 2): latents 0 and 2; x_hat = (2 + 1.2 + 1, 1.6 + 1)
    step = coder.loss(x, x, at())
    assert step.codes.latent_ids.tolist() == [0, 2]
    assert step.codes.values.tolist() == [2.0, 2.0]
    torch.testing.assert_close(step.reconstruction.detach(), torch.tensor([[4.2, 2.6]], dtype=torch.float64))
    assert step.losses["mse"].item() == pytest.approx(1.2**2 + 0.6**2)


def test_auxk_teaches_the_encoder_of_dead_latents_too(make_coder: Make, at: At, x: Tensor) -> None:
    coder = make_coder("topk", k=5)
    fired = coder.loss(x, x, at()).codes.latent_ids.tolist()
    dead = sorted(set(range(N_LATENTS)) - set(fired))
    assert dead, "the test needs latents that are silent"
    coder.loss(x, x, at(*dead)).losses["aux"].backward()
    for parameter in (coder.W_enc, coder.b_enc, coder.W_dec):
        assert parameter.grad[dead].abs().sum() > 0
        assert not parameter.grad[fired].any()
    assert coder.b_dec.grad is None or not coder.b_dec.grad.any(), (
        "what dead latents leave over is not the bias's fault"
    )


def test_auxk_is_worth_its_weight_at_any_scale_of_rows(make_coder: Make, at: At, x: Tensor) -> None:
    """Explained as a share, an eleventh of the scale makes a hundred-and-twenty-first of the loss."""
    coder = make_coder("topk", k=5)
    large = coder.loss(x, x, at(*range(0, 63, 9))).losses
    with torch.no_grad():
        coder.b_enc.div_(11)
        coder.b_dec.div_(11)
    small = coder.loss(x / 11, x / 11, at(*range(0, 63, 9))).losses
    for name in ("mse", "aux"):
        assert large[name].item() == pytest.approx(121 * small[name].item(), rel=1e-9)


def test_a_coefficient_of_zero_turns_the_auxiliary_loss_off(make_coder: Make, at: At, x: Tensor) -> None:
    assert make_coder("topk", aux_coefficient=0.0).loss(x, x, at(*range(63))).losses.keys() == {"mse"}


@pytest.mark.parametrize(
    ("setting", "value"),
    [("k", 0), ("k", -1), ("k", 64), ("k_aux", 0), ("multi_k", 1), ("multi_k", -4), ("aux_coefficient", -0.5)],
)
def test_a_setting_out_of_range_is_named_with_its_value(setting: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"coder\.{setting}.*{value}"):
        TopKConfig(**{"n_latents": N_LATENTS, "k": 5} | {setting: value})
