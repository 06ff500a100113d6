from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from unweave.coders import Port, Wiring
from unweave.coders.folding import Scaling, fold_scaling
from unweave.coders.matching_pursuit import MatchingPursuit, MatchingPursuitConfig
from unweave.errors import UserError

from .conftest import At, Check, Make

N_LATENTS = 63


def _greedy(
    p: dict[str, Tensor], x: Tensor, k: int, threshold: float, stops_on_duplicate: bool = False
) -> tuple[Tensor, list[list[int]]]:
    """Each row by itself, all products and updates under autograd: codes, and the latents of each row in order."""
    rows, orders = [], []
    for row in x:
        f, r, order = torch.zeros(N_LATENTS, dtype=x.dtype), row - p["b_dec"], []
        for _ in range(k):
            products = p["W_dec"] @ r
            i = int(products.argmax())
            if products[i] <= 0 or (order and r.norm() < threshold):
                break
            is_duplicate = i in order
            f = f + products[i] * torch.eye(N_LATENTS, dtype=x.dtype)[i]
            r = r - products[i] * p["W_dec"][i]
            order.append(i)
            if is_duplicate and stops_on_duplicate:
                break
        rows.append(f)
        orders.append(order)
    return torch.stack(rows), orders


@pytest.mark.parametrize("threshold", [0.0, 0.4])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_losses_and_gradients_are_those_of_a_greedy_search_row_by_row(
    make_coder: Make, agree: Check, at: At, x: Tensor, k: int, threshold: float
) -> None:
    coder = make_coder("matching_pursuit", k=k, residual_threshold=threshold)
    x = x[:37]

    def plain(p: dict[str, Tensor]) -> dict[str, Tensor]:
        f, orders = _greedy(p, x, k, coder.residual_threshold.item())
        if k == 20:
            assert any(len(set(order)) < len(order) for order in orders), "no latent was found twice"
        if threshold:
            assert len({len(order) for order in orders}) > (k > 1), "no row stopped early"
        return {"mse": ((x - f @ p["W_dec"] - p["b_dec"]) ** 2).sum(1).mean()}

    agree(coder, x, x, at(1, 2), plain)
    f, _ = _greedy(dict(coder.named_parameters()), x, k, coder.residual_threshold.item())
    torch.testing.assert_close(coder.encode(x).dense(), f.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("threshold", [0.0, 0.4])
def test_a_row_that_finds_a_latent_again_can_stop_after_that_step(
    make_coder: Make, agree: Check, at: At, x: Tensor, threshold: float
) -> None:
    settings = {"k": 20, "residual_threshold": threshold, "stop_on_duplicate_support": True}
    coder = make_coder("matching_pursuit", **settings)
    x = x[:37]

    def plain(p: dict[str, Tensor]) -> dict[str, Tensor]:
        f, orders = _greedy(p, x, 20, coder.residual_threshold.item(), stops_on_duplicate=True)
        assert any(order[-1] in order[:-1] for order in orders), "no latent was found again"
        assert all(len(set(order)) >= len(order) - 1 for order in orders)
        return {"mse": ((x - f @ p["W_dec"] - p["b_dec"]) ** 2).sum(1).mean()}

    agree(coder, x, x, at(1, 2), plain)
    f, _ = _greedy(dict(coder.named_parameters()), x, 20, coder.residual_threshold.item(), stops_on_duplicate=True)
    torch.testing.assert_close(coder.encode(x).dense(), f.detach(), rtol=1e-12, atol=1e-12)


def test_a_row_shorter_than_the_threshold_still_takes_one_step() -> None:
    coder = MatchingPursuit(MatchingPursuitConfig(n_latents=2, k=2, residual_threshold=5.0), Wiring.sae(2)).double()
    with torch.no_grad():
        coder.W_dec.copy_(torch.eye(2))
    codes = coder.encode(torch.tensor([[2.0, 1.0]], dtype=torch.float64))
    assert codes.latent_ids.tolist() == [0]
    assert codes.values.tolist() == [2.0]


def test_three_steps_by_hand(at: At) -> None:
    coder = MatchingPursuit(MatchingPursuitConfig(n_latents=3, k=3), Wiring.sae(2)).double()
    with torch.no_grad():
        coder.W_dec.copy_(torch.tensor([[1.0, 0.0], [0.6, 0.8], [-0.6, 0.8]], dtype=torch.float64))
        coder.b_dec.copy_(torch.tensor([1.0, 1.0]))
    x = torch.tensor([[6.0, 6.0]], dtype=torch.float64)
    # r = (5, 5): products 5, 7, 1, so latent 1 with 7; r = (0.8, -0.6): 0.8, 0, -0.96, so latent 0 with 0.8;
    # r = (0, -0.6): nothing is positive
    step = coder.loss(x, x, at())
    assert step.codes.latent_ids.tolist() == [0, 1]
    torch.testing.assert_close(step.codes.values.detach(), torch.tensor([0.8, 7.0], dtype=torch.float64))
    assert step.losses["mse"].item() == pytest.approx(0.36)


def test_what_is_left_shrinks_with_every_step(make_coder: Make, at: At, x: Tensor) -> None:
    coder = make_coder("matching_pursuit", k=1)
    lefts = []
    for k in range(1, 12):
        deeper = MatchingPursuit(MatchingPursuitConfig(n_latents=N_LATENTS, k=k), coder.wiring).double()
        deeper.load_state_dict(coder.state_dict())
        lefts.append((x - deeper(x)).norm(dim=1))
    assert all((after <= before + 1e-12).all() for before, after in pairwise(lefts))
    assert (lefts[-1] < 0.5 * lefts[0]).any()


def test_a_correlated_latent_is_not_read_once_it_is_explained() -> None:
    """TopK would read both of two nearly equal latents; here the second finds next to nothing left."""
    coder = MatchingPursuit(MatchingPursuitConfig(n_latents=3, k=2), Wiring.sae(3)).double()
    with torch.no_grad():
        coder.W_dec.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0]]))
    codes = coder.encode(torch.tensor([[5.0, 0.0, 1.0]], dtype=torch.float64))
    assert codes.latent_ids.tolist() == [0, 2]
    assert codes.values.tolist() == [5.0, 1.0]


def test_the_threshold_is_folded_with_the_scale_of_rows(make_coder: Make, x: Tensor) -> None:
    coder = make_coder("matching_pursuit", k=7, residual_threshold=0.4)
    before = coder.residual_threshold.item()
    scaling = [Scaling(factor=0.25)]
    with torch.no_grad():
        codes = coder.encode(0.25 * x)
        fold_scaling(coder, scaling, scaling)
        folded = coder.encode(x)
    assert (codes.row_offsets.diff() < 7).any(), "no row stopped early"
    assert coder.residual_threshold.item() == pytest.approx(4 * before)
    assert torch.equal(folded.latent_ids, codes.latent_ids)
    torch.testing.assert_close(folded.values, 4 * codes.values, rtol=1e-10, atol=0)
    torch.testing.assert_close(coder.W_dec.norm(dim=1), torch.ones(63, dtype=torch.float64))


def test_decoder_rows_can_start_in_the_active_subspace(x: Tensor) -> None:
    flat = x.clone()
    flat[:, 2:] = 0.0
    coder = MatchingPursuit(MatchingPursuitConfig(n_latents=63, k=5, active_subspace=2), Wiring.sae(7)).double()
    coder.start_from(flat, flat)
    assert coder.W_dec[:, 2:].abs().max() < 1e-6
    torch.testing.assert_close(coder.W_dec.norm(dim=1), torch.ones(63, dtype=torch.float64))


@pytest.mark.parametrize(
    "wiring",
    [
        Wiring.transcoder(Port("in", 7), Port("out", 7)),
        Wiring.transcoder(Port("in", 7), Port("out", 7), skip=True),
        Wiring.crosscoder(Port("first", 3), Port("second", 4)),
    ],
    ids=lambda wiring: wiring.kind,
)
def test_other_wirings_than_an_sae_are_refused(wiring: Wiring) -> None:
    with pytest.raises(UserError, match=f"one site that it reads and writes, got a {wiring.kind}"):
        MatchingPursuit(MatchingPursuitConfig(n_latents=63, k=5), wiring)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("k", 0),
        ("k", 64),
        ("residual_threshold", -0.1),
        ("decoder_norm", "free"),
        ("decoder_init_norm", 0.5),
        ("encoder_init_gain", 2.0),
        ("centre", False),
        ("input_scale", "whiten"),
    ],
)
def test_a_setting_that_makes_no_sense_here_is_named(setting: str, value: Any) -> None:
    with pytest.raises(UserError, match=setting):
        MatchingPursuitConfig(**{"n_latents": N_LATENTS, "k": 5} | {setting: value})
