import pytest
import torch
from torch import Tensor

from unweave.coders import Wiring
from unweave.coders.group_max import GroupMax, GroupMaxConfig
from unweave.errors import UserError

from .conftest import Check, Make


@pytest.mark.parametrize("k", [1, 7, 21, 63])
@pytest.mark.parametrize("centre", [True, False])
def test_losses_and_gradients_are_those_of_the_dense_formulas(
    make_coder: Make, agree_with_aux: Check, centre: bool, k: int
) -> None:
    def latents(pre: Tensor) -> list[Tensor]:
        groups = torch.relu(pre).view(100, k, 63 // k)
        return [(groups * (groups == groups.max(2, keepdim=True).values)).view(100, 63)]

    agree_with_aux(make_coder("group_max", k=k, k_aux=4, centre=centre), latents, centre=centre)


def test_each_group_has_its_largest_positive_latent_and_the_first_wins_a_tie() -> None:
    coder = GroupMax(GroupMaxConfig(n_latents=6, k=2), Wiring.sae(6)).double()
    with torch.no_grad():
        coder.W_enc.copy_(torch.eye(6))
    x = torch.tensor([[1, 3, 2, 5, 4, 5], [-1, -2, -3, 0, 0, 0], [-1, 2, -3, -1, -1, -1]], dtype=torch.float64)
    codes = coder.encode(x)
    assert codes.row_offsets.tolist() == [0, 2, 2, 3]
    assert codes.latent_ids.tolist() == [1, 3, 1]
    assert codes.values.tolist() == [3.0, 5.0, 2.0]


@pytest.mark.parametrize(("setting", "value"), [("k", 0), ("k", -1), ("k", 64), ("k", 5), ("k_aux", 0)])
def test_a_setting_out_of_range_is_named_with_its_value(setting: str, value: int) -> None:
    with pytest.raises(UserError, match=rf"coder\.{setting}.*{value}"):
        GroupMaxConfig(**{"n_latents": 63, "k": 7} | {setting: value})
