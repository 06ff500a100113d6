import pytest
import torch
from torch import Tensor

from unweave.coders import Port, Wiring
from unweave.coders.prolu import Prolu, ProluConfig
from unweave.errors import UserError

from .conftest import At, Check, Make


def _gradient_like(value: Tensor, *sources: Tensor) -> Tensor:
    """``value`` without its own gradient, and with that of the sum of the sources."""
    return value.detach() + sum(source - source.detach() for source in sources)


@pytest.mark.parametrize("bias", [0.0, -2.0, -100.0], ids=["dense codes", "sparse codes", "no codes"])
@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("power", [1.0, 0.5])
@pytest.mark.parametrize("variant", ["relu", "ste"])
def test_losses_and_gradients_are_those_of_the_dense_formulas(
    make_coder: Make, agree: Check, at: At, x: Tensor, variant: str, power: float, centre: bool, bias: float
) -> None:
    settings = {"variant": variant, "centre": centre, "l_power": power, "l_coefficient": 0.7, "l_warm_up": 0.2}
    coder = make_coder("prolu", **settings)
    with torch.no_grad():
        coder.b_enc.add_(bias)

    def plain(p: dict[str, Tensor]) -> dict[str, Tensor]:
        m = (x - p["b_dec"] * centre) @ p["W_enc"].T
        b = p["b_enc"].expand_as(m)
        gate = ((m > 0) & (m + b > 0)).double()
        if variant == "relu":
            f = gate * _gradient_like(m, m, b)
        else:
            f = gate * _gradient_like(m, m * (1 + m.detach()), b * m.detach())
        x_hat = f @ p["W_dec"] + p["b_dec"]
        size = torch.where(gate > 0, f, 1.0) ** power * gate
        return {"mse": ((x - x_hat) ** 2).sum(1).mean(), "lp": 0.35 * size.sum(1).mean()}

    agree(coder, x, x, at(progress=0.1), plain)


def test_the_bias_gates_but_does_not_shift() -> None:
    coder = Prolu(ProluConfig(n_latents=3), Wiring.sae(1)).double()
    with torch.no_grad():
        coder.W_enc.fill_(1.0)
        coder.b_enc.copy_(torch.tensor([-1.0, 0.0, 5.0]))
    x = torch.tensor([[2.0], [1.0], [0.5], [-1.0]], dtype=torch.float64)
    expected = [[2.0, 2.0, 2.0], [0.0, 1.0, 1.0], [0.0, 0.5, 0.5], [0.0, 0.0, 0.0]]
    assert coder.encode(x).dense().tolist() == expected


def test_whitened_rows_are_refused_where_their_mean_could_not_be_folded_away() -> None:
    config = ProluConfig(n_latents=63, input_scale="whiten")
    assert Prolu(config, Wiring.sae(7)).config.centre
    with pytest.raises(UserError, match="whiten"):
        Prolu(config, Wiring.transcoder(Port("in", 7), Port("out", 7)))
    with pytest.raises(UserError, match="whiten"):
        Prolu(ProluConfig(n_latents=63, input_scale="whiten", centre=False), Wiring.sae(7))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("l_coefficient", -0.1), ("l_power", 0.0), ("l_power", 1.5), ("l_warm_up", -0.1), ("l_warm_up", 1.1)],
)
def test_a_setting_out_of_range_is_named_with_its_value(setting: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"coder\.{setting}.*{value}"):
        ProluConfig(**{setting: value})


def test_free_decoder_norms_are_refused() -> None:
    with pytest.raises(UserError, match="decoder_norm"):
        ProluConfig(decoder_norm="free")
