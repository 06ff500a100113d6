from typing import Any

import pytest
import torch
from torch import Tensor

from unweave.coders import Port, Wiring
from unweave.coders.switch import Switch, SwitchConfig
from unweave.errors import UserError

from .conftest import At, Check, Make, Selection

N_LATENTS = 63


def _dense(p: dict[str, Tensor], x: Tensor, n_experts: int, k: int, top_k: Selection) -> tuple[Tensor, Tensor, Tensor]:
    """All experts computed and all but the chosen one masked: latents, shares, balance."""
    shares = torch.softmax(x @ p["W_router"].T + p["b_router"], dim=1)
    chosen = torch.zeros_like(shares).scatter(1, shares.argmax(1, keepdim=True), 1.0)
    mask = chosen.repeat_interleave(N_LATENTS // n_experts, dim=1)
    h = torch.where(mask > 0, x @ p["W_enc"].T + p["b_enc"], torch.full_like(mask, -1.0))
    f = top_k(h, k) * (shares * chosen).sum(1, keepdim=True)
    return f, shares, n_experts * (chosen.mean(0) * shares.mean(0)).sum()


@pytest.mark.parametrize(("n_experts", "k"), [(1, 5), (3, 1), (3, 7), (3, 21), (9, 7), (63, 1)])
@pytest.mark.parametrize("centre", [True, False])
def test_losses_and_gradients_are_those_of_the_dense_formulas(
    make_coder: Make, agree: Check, top_k: Selection, at: At, x: Tensor, centre: bool, n_experts: int, k: int
) -> None:
    coder = make_coder("switch", k=k, n_experts=n_experts, balance_coefficient=0.7, centre=centre)

    def plain(p: dict[str, Tensor]) -> dict[str, Tensor]:
        f, _, balance = _dense(p, x - p["b_dec"] * centre, n_experts, k, top_k)
        return {"mse": ((x - f @ p["W_dec"] - p["b_dec"]) ** 2).sum(1).mean(), "balance": 0.7 * balance}

    agree(coder, x, x, at(1, 2, 3), plain)


def test_what_is_written_may_be_something_else_than_what_is_read(
    make_coder: Make, agree: Check, top_k: Selection, at: At, x: Tensor
) -> None:
    y = torch.randn(100, 5, dtype=torch.float64)

    def plain(p: dict[str, Tensor]) -> dict[str, Tensor]:
        f, _, balance = _dense(p, x, 3, 7, top_k)
        y_hat = f @ p["W_dec"] + p["b_dec"] + x @ p["W_skip"].T
        return {"mse": ((y - y_hat) ** 2).sum(1).mean(), "balance": 0.1 * balance}

    wiring = Wiring.transcoder(Port("in", 7), Port("out", 5), skip=True)
    agree(make_coder("switch", wiring, k=7, n_experts=3), x, y, at(), plain)


def test_every_row_uses_the_latents_of_one_expert(make_coder: Make, x: Tensor) -> None:
    coder = make_coder("switch", k=7, n_experts=9)
    codes = coder.encode(x)
    experts = (codes.dense() > 0).unflatten(1, (9, 7)).any(2)
    assert (experts.sum(1) <= 1).all()
    assert experts.any(0).sum() > 3
    logits = (x - coder.b_dec) @ coder.W_router.T + coder.b_router
    for row in range(100):
        if experts[row].any():
            assert experts[row].nonzero().item() == logits[row].argmax().item()


def test_an_expert_that_no_row_chooses_is_not_computed(make_coder: Make, at: At, x: Tensor) -> None:
    """Weights that are not numbers would spoil any product they take part in."""
    coder = make_coder("switch", k=7, n_experts=3)
    with torch.no_grad():
        coder.b_router.copy_(torch.tensor([0.0, -1000.0, 0.0]))
        coder.W_enc[21:42] = torch.nan
        coder.b_enc[21:42] = torch.nan
    step = coder.loss(x, x, at())
    torch.stack(list(step.losses.values())).sum().backward()
    assert all(loss.isfinite() for loss in step.losses.values())
    assert all(p.grad.isfinite().all() for p in coder.parameters())
    assert not coder.W_enc.grad[21:42].any()
    assert coder.W_enc.grad[:21].any()
    assert coder.W_enc.grad[42:].any()


def test_two_experts_and_two_rows_by_hand(at: At) -> None:
    config = SwitchConfig(n_latents=4, k=1, n_experts=2, balance_coefficient=1.0)
    coder = Switch(config, Wiring.sae(2)).double()
    with torch.no_grad():
        coder.W_router.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]) * torch.log(torch.tensor(3.0)))
        coder.W_enc.copy_(torch.tensor([[1.0, 0.0], [0.5, 0.0], [0.0, 1.0], [0.0, 4.0]]))
        coder.W_dec.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    # shares are 3 : 1 and 1 : 9, so latent 0 has 1 * 3/4 and latent 3 has 8 * 9/10
    step = coder.loss(x, x, at())
    assert step.codes.latent_ids.tolist() == [0, 3]
    torch.testing.assert_close(step.codes.values.detach(), torch.tensor([0.75, 7.2], dtype=torch.float64))
    assert step.losses["mse"].item() == pytest.approx((0.25**2 + 5.2**2) / 2)
    # each expert has half of the rows; mean shares are (3/4 + 1/10) / 2 and the rest
    assert step.losses["balance"].item() == pytest.approx(2 * (0.5 * 0.425 + 0.5 * 0.575))


def test_balance_is_higher_where_one_expert_has_all_rows(make_coder: Make, at: At, x: Tensor) -> None:
    coder = make_coder("switch", k=7, n_experts=3, balance_coefficient=1.0)
    before = coder.loss(x, x, at()).losses["balance"].item()
    with torch.no_grad():
        coder.b_router[0] += 50.0
    assert before < coder.loss(x, x, at()).losses["balance"].item() == pytest.approx(3.0)


def test_one_expert_is_topk(make_coder: Make, at: At, x: Tensor) -> None:
    ours, theirs = make_coder("switch", k=5, n_experts=1), make_coder("topk", k=5)
    theirs.load_state_dict({k: v for k, v in ours.state_dict().items() if "router" not in k})
    a, b = ours.loss(x, x, at()), theirs.loss(x, x, at())
    assert a.losses["mse"].item() == pytest.approx(b.losses["mse"].item(), rel=1e-12)
    assert torch.equal(a.codes.latent_ids, b.codes.latent_ids)


@pytest.mark.parametrize("scale", [0.01, 1.0, 300.0])
def test_the_router_starts_unsure_whatever_the_scale_of_rows(x: Tensor, scale: float) -> None:
    coder = Switch(SwitchConfig(n_latents=63, k=5, n_experts=3), Wiring.sae(7)).double()
    coder.start_from(scale * x, scale * x)
    logits = (scale * x - coder.b_dec) @ coder.W_router.T + coder.b_router
    torch.testing.assert_close(logits.std(0), torch.ones(3, dtype=torch.float64))


def test_a_batch_without_rows_has_no_codes(make_coder: Make) -> None:
    codes = make_coder("switch", k=7, n_experts=3).encode(torch.zeros(0, 7, dtype=torch.float64))
    assert codes.n_rows == 0
    assert len(codes.values) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_experts": 0}, "n_experts=0"),
        ({"n_experts": 8}, "n_experts=8 with n_latents=63"),
        ({"k": 0}, "k needs.*k=0"),
        ({"k": 22}, "n_latents / n_experts = 21, got k=22"),
        ({"balance_coefficient": -0.5}, "balance_coefficient.*-0.5"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SwitchConfig(**{"n_latents": N_LATENTS, "k": 5, "n_experts": 3} | settings)
