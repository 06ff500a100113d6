import pytest
import torch
from torch import Tensor

from unweave.coders import Wiring
from unweave.coders.abs_topk import AbsTopK, AbsTopKConfig
from unweave.errors import UserError

from .conftest import At, Check, Make, Selection


@pytest.mark.parametrize("k", [1, 5, 63])
@pytest.mark.parametrize("centre", [True, False])
def test_losses_and_gradients_are_those_of_the_dense_formulas(
    make_coder: Make, agree_with_aux: Check, top_k: Selection, centre: bool, k: int
) -> None:
    coder = make_coder("abs_topk", k=k, k_aux=4, centre=centre)
    agree_with_aux(coder, lambda pre: [top_k(pre, k, signed=True)], centre=centre, signed=True)


def test_a_direction_and_its_opposite_need_one_latent(at: At) -> None:
    coder = AbsTopK(AbsTopKConfig(n_latents=2, k=1), Wiring.sae(2)).double()
    with torch.no_grad():
        coder.W_enc.copy_(torch.eye(2))
        coder.W_dec.copy_(torch.eye(2))
    x = torch.tensor([[3.0, 0.5], [-3.0, 0.5], [1.0, -2.0], [0.0, 0.0]], dtype=torch.float64)
    codes = coder.encode(x)
    assert codes.values.tolist() == [3.0, -3.0, -2.0]
    assert codes.latent_ids.tolist() == [0, 0, 1]
    assert codes.row_offsets.tolist() == [0, 1, 2, 3, 3], "zeros are never active"
    step = coder.loss(x, x, at())
    assert step.losses["mse"].item() == pytest.approx((0.25 + 0.25 + 1.0 + 0.0) / 4)


def test_every_row_has_k_latents_of_either_sign(make_coder: Make, x: Tensor) -> None:
    codes = make_coder("abs_topk", k=5).encode(x)
    assert (codes.row_offsets.diff() == 5).all()
    assert (codes.values > 0).any()
    assert (codes.values < 0).any()


@pytest.mark.parametrize(("setting", "value"), [("k", 0), ("k", -1), ("k", 64), ("k_aux", 0)])
def test_a_setting_out_of_range_is_named_with_its_value(setting: str, value: int) -> None:
    with pytest.raises(UserError, match=rf"coder\.{setting}.*{value}"):
        AbsTopKConfig(**{"n_latents": 63, "k": 5} | {setting: value})
