from typing import Any

import pytest
import torch
from torch import Tensor

from unweave.coders import Port, Wiring
from unweave.coders.relu import ReluConfig
from unweave.errors import UserError

from .conftest import At, Check, Make

SHARE_OF_PENALTY = {0.0: 0.0, 0.02: 0.1, 0.2: 1.0, 0.9: 1.0}
"""With ``l1_warm_up=0.2``."""


@pytest.mark.parametrize("progress", list(SHARE_OF_PENALTY))
@pytest.mark.parametrize("bias", [0.0, -3.0], ids=["dense codes", "sparse codes"])
@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("variant", ["2023", "april_2024"])
def test_losses_and_gradients_are_those_of_the_dense_formulas(
    make_coder: Make, agree: Check, at: At, x: Tensor, variant: str, centre: bool, bias: float, progress: float
) -> None:
    coder = make_coder("relu", variant=variant, centre=centre, l1_coefficient=0.7, l1_warm_up=0.2)
    with torch.no_grad():
        coder.b_enc.add_(bias)

    def plain(p: dict[str, Tensor]) -> dict[str, Tensor]:
        f = torch.relu((x - p["b_dec"] * centre) @ p["W_enc"].T + p["b_enc"])
        x_hat = f @ p["W_dec"] + p["b_dec"]
        weight = (p["W_dec"] ** 2).sum(1).sqrt() if variant == "april_2024" else 1.0
        l1 = 0.7 * SHARE_OF_PENALTY[progress] * (f * weight).sum(1).mean()
        return {"mse": ((x - x_hat) ** 2).sum(1).mean(), "l1": l1}

    agree(coder, x, x, at(progress=progress), plain)


def test_a_crosscoder_is_penalised_by_the_sum_of_its_sites_norms(make_coder: Make, agree: Check, at: At) -> None:
    coder = make_coder(
        "relu", Wiring.crosscoder(Port("first", 3), Port("second", 5)), variant="april_2024", l1_coefficient=0.7
    )
    x = torch.randn(100, 8, dtype=torch.float64)

    def plain(p: dict[str, Tensor]) -> dict[str, Tensor]:
        f = torch.relu(x @ p["W_enc"].T + p["b_enc"])
        norms = (p["W_dec"][:, :3] ** 2).sum(1).sqrt() + (p["W_dec"][:, 3:] ** 2).sum(1).sqrt()
        mse = ((x - f @ p["W_dec"] - p["b_dec"]) ** 2).sum(1).mean()
        return {"mse": mse, "l1": 0.7 * (f * norms).sum(1).mean()}

    agree(coder, x, x, at(), plain)


def test_a_skip_transcoder_learns_what_the_linear_path_leaves(
    make_coder: Make, agree: Check, at: At, x: Tensor
) -> None:
    coder = make_coder("relu", Wiring.transcoder(Port("in", 7), Port("out", 5), skip=True), l1_coefficient=0.7)
    y = torch.randn(100, 5, dtype=torch.float64)

    def plain(p: dict[str, Tensor]) -> dict[str, Tensor]:
        f = torch.relu(x @ p["W_enc"].T + p["b_enc"])
        y_hat = f @ p["W_dec"] + p["b_dec"] + x @ p["W_skip"].T
        return {"mse": ((y - y_hat) ** 2).sum(1).mean(), "l1": 0.7 * f.sum(1).mean()}

    agree(coder, x, y, at(), plain)


def test_the_penalty_is_whole_from_the_start_without_warm_up(make_coder: Make, at: At, x: Tensor) -> None:
    step = make_coder("relu", l1_coefficient=0.7, l1_warm_up=0.0).loss(x, x, at(progress=0.0))
    assert step.losses["l1"].item() == pytest.approx(0.7 * step.codes.values.sum().item() / 100)


def test_codes_are_the_positive_preactivations(make_coder: Make, x: Tensor) -> None:
    coder = make_coder("relu")
    expected = torch.relu((x - coder.b_dec) @ coder.W_enc.T + coder.b_enc).detach()
    torch.testing.assert_close(coder.encode(x).dense(), expected, rtol=1e-12, atol=1e-12)


def test_the_form_of_april_2024_brings_its_own_defaults() -> None:
    config = ReluConfig(variant="april_2024")
    assert (config.decoder_norm, config.centre, config.input_scale) == ("free", False, "sqrt_width")
    assert (config.decoder_init_norm, config.l1_coefficient) == (0.1, 5.0)
    assert ReluConfig(variant="april_2024", l1_coefficient=0.0, centre=True).centre


@pytest.mark.parametrize(("setting", "value"), [("l1_coefficient", -0.1), ("l1_warm_up", -0.1), ("l1_warm_up", 1.1)])
def test_a_setting_out_of_range_is_named_with_its_value(setting: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"coder\.{setting}.*{value}"):
        ReluConfig(**{setting: value})


def test_free_decoder_norms_are_refused_where_they_would_escape_the_penalty() -> None:
    settings: dict[str, Any] = {"decoder_norm": "free"}
    with pytest.raises(UserError, match="decoder_norm"):
        ReluConfig(**settings)
