from typing import Any

import pytest
import torch
from torch import Tensor

from unweave.coders import Port, Wiring
from unweave.coders.hierarchical_topk import HierarchicalTopK, HierarchicalTopKConfig
from unweave.errors import UserError
from unweave.kernels.selection import TopKOfRow, narrow

from .conftest import At, Check, Make, Selection

N_LATENTS = 63


@pytest.mark.parametrize(
    ("k", "budgets"), [(1, ()), (5, ()), (5, (5,)), (9, (1, 4, 9)), (20, (3, 4, 19, 20)), (N_LATENTS, ())]
)
@pytest.mark.parametrize("centre", [True, False])
def test_losses_and_gradients_are_those_of_the_dense_formulas(
    make_coder: Make, agree_with_aux: Check, top_k: Selection, centre: bool, k: int, budgets: tuple[int, ...]
) -> None:
    coder = make_coder("hierarchical_topk", k=k, k_aux=4, centre=centre, budgets=budgets)
    each = budgets or range(1, k + 1)
    agree_with_aux(coder, lambda pre: [top_k(pre, j) for j in each], centre=centre, error="prefix_mse")


def test_what_is_written_may_be_something_else_than_what_is_read(
    make_coder: Make, agree_with_aux: Check, top_k: Selection
) -> None:
    wiring = Wiring.transcoder(Port("in", 7), Port("out", 5), skip=True)
    y = torch.randn(100, 5, dtype=torch.float64)
    coder = make_coder("hierarchical_topk", wiring, k=7, k_aux=4)
    agree_with_aux(coder, lambda pre: [top_k(pre, j) for j in range(1, 8)], y, centre=False, error="prefix_mse")


def test_two_budgets_of_one_row_by_hand(at: At) -> None:
    coder = HierarchicalTopK(HierarchicalTopKConfig(n_latents=3, k=2), Wiring.sae(2)).double()
    with torch.no_grad():
        coder.W_enc.copy_(torch.tensor([[0.5, 0.0], [0.0, 0.1], [0.0, 1.0]]))
        coder.W_dec.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
    x = torch.tensor([[2.0, 3.0]], dtype=torch.float64)
    # latent 2 has 3, latent 0 has 1: errors (-2, 0) with one latent, (-1, 0) with two
    step = coder.loss(x, x, at())
    step.losses["prefix_mse"].backward()
    assert step.losses["prefix_mse"].item() == pytest.approx((4.0 + 1.0) / 2)
    assert step.codes.latent_ids.tolist() == [0, 2]
    assert step.reconstruction.tolist() == [[1.0, 3.0]]
    # the gradient of what is written is the error of both budgets for latent 2, of the second alone for latent 0
    expected = torch.tensor([[1.0 * -1.0, 0.0], [0.0, 0.0], [3.0 * (-2.0 - 1.0), 0.0]], dtype=torch.float64)
    torch.testing.assert_close(coder.W_dec.grad, expected)
    # latent 0 gets (-1, 0) . (1, 0) = -1, and reads 0.5 of what b_dec takes away
    torch.testing.assert_close(coder.b_dec.grad, torch.tensor([-3.0 + 0.5, 0.0], dtype=torch.float64))


def test_the_only_budget_k_is_topk(make_coder: Make, at: At, x: Tensor) -> None:
    ours, theirs = make_coder("hierarchical_topk", k=5, budgets=(5,)), make_coder("topk", k=5)
    theirs.load_state_dict(ours.state_dict())
    a, b = ours.loss(x, x, at(1, 2)), theirs.loss(x, x, at(1, 2))
    torch.testing.assert_close(list(a.losses.values()), list(b.losses.values()), rtol=1e-12, atol=0)
    torch.testing.assert_close(a.reconstruction, b.reconstruction, rtol=1e-12, atol=1e-12)


def test_the_loss_is_the_mean_over_codes_narrowed_to_each_budget(make_coder: Make, at: At, x: Tensor) -> None:
    coder = make_coder("hierarchical_topk", k=7)
    codes = coder.encode(x)
    written = [coder.reconstruct(narrow(codes, TopKOfRow(j)), x) for j in range(1, 8)]
    by_hand = sum(((x - x_hat) ** 2).sum() / len(x) for x_hat in written) / 7
    torch.testing.assert_close(coder.loss(x, x, at()).losses["prefix_mse"], by_hand, rtol=1e-12, atol=0)


@pytest.mark.parametrize("n_rows", [1, 7, 64])
def test_rows_with_fewer_active_latents_than_k_keep_their_last_reconstruction(
    make_coder: Make, at: At, x: Tensor, n_rows: int
) -> None:
    coder = make_coder("hierarchical_topk", k=20)
    with torch.no_grad():
        coder.b_enc.sub_(2.0)
    codes = coder.encode(x[:n_rows])
    assert (codes.row_offsets.diff() < 20).any()
    f = codes.dense()
    order = f.argsort(dim=1, descending=True)
    errors = []
    for j in range(1, 21):
        largest = torch.zeros_like(f).scatter(1, order[:, :j], 1.0) * f
        errors.append(((x[:n_rows] - largest @ coder.W_dec - coder.b_dec) ** 2).sum(1).mean())
    loss = coder.loss(x[:n_rows], x[:n_rows], at()).losses["prefix_mse"]
    torch.testing.assert_close(loss, torch.stack(errors).mean(), rtol=1e-12, atol=0)


def test_a_step_without_gradients_gives_the_same_numbers(make_coder: Make, at: At, x: Tensor) -> None:
    coder = make_coder("hierarchical_topk", k=7)
    with torch.no_grad():
        quiet = coder.loss(x, x, at())
    step = coder.loss(x, x, at())
    assert torch.equal(quiet.losses["prefix_mse"], step.losses["prefix_mse"])
    assert not quiet.losses["prefix_mse"].requires_grad


@pytest.mark.parametrize(
    ("setting", "value"),
    [("k", 0), ("k", 64), ("budgets", (0, 5)), ("budgets", (1, 3)), ("budgets", (3, 3, 5)), ("budgets", (1, 5, 6))],
)
def test_a_setting_out_of_range_is_named_with_its_value(setting: str, value: Any) -> None:
    shown = str(value if isinstance(value, int) else list(value)).replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(UserError, match=rf"coder\.{setting}.*{shown}"):
        HierarchicalTopKConfig(**{"n_latents": N_LATENTS, "k": 5} | {setting: value})
