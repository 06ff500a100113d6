import pytest
import torch
from torch import Tensor

from unweave.coders.batch_topk import BatchTopKConfig
from unweave.errors import UserError

from .conftest import At, Check, Make, Selection

N_ROWS, N_LATENTS = 100, 63


@pytest.mark.parametrize("k", [1.0, 2.37, 5.0, float(N_LATENTS)])
@pytest.mark.parametrize("centre", [True, False])
def test_losses_and_gradients_are_those_of_the_dense_formulas(
    make_coder: Make, agree_with_aux: Check, top_of_all: Selection, centre: bool, k: float
) -> None:
    coder = make_coder("batch_topk", k=k, k_aux=4, centre=centre)
    agree_with_aux(coder, lambda pre: [top_of_all(pre, int(N_ROWS * k))], centre=centre)


def test_training_keeps_k_latents_per_row_on_average_and_lets_hard_rows_have_more(
    make_coder: Make, at: At, x: Tensor
) -> None:
    coder = make_coder("batch_topk", k=5.0)
    x[:7] *= 5
    codes = coder.loss(x, x, at()).codes
    assert (codes.values > 0).sum() == N_ROWS * 5
    per_row = codes.row_offsets.diff()
    assert per_row[:7].double().mean() > per_row[7:].double().mean()


def test_the_threshold_is_the_running_mean_of_the_smallest_value_kept(make_coder: Make, at: At) -> None:
    coder = make_coder("batch_topk", k=5.0, threshold_decay=0.9)
    by_hand = None
    for _ in range(7):
        x = torch.randn(N_ROWS, 7, dtype=torch.float64)
        codes = coder.loss(x, x, at()).codes
        smallest = codes.values.min().item()
        by_hand = smallest if by_hand is None else 0.9 * by_hand + 0.1 * smallest
        assert coder.threshold.item() == pytest.approx(by_hand, rel=1e-12)


def test_in_use_an_entry_is_active_when_it_exceeds_the_threshold(make_coder: Make, at: At, x: Tensor) -> None:
    coder = make_coder("batch_topk", k=5.0)
    coder.loss(x, x, at())
    pre = (x - coder.b_dec) @ coder.W_enc.T + coder.b_enc
    expected = torch.where(pre > coder.threshold, pre, torch.zeros_like(pre))
    torch.testing.assert_close(coder.encode(x).dense(), expected.detach(), rtol=1e-12, atol=1e-12)
    assert len(coder.encode(x).values) == pytest.approx(N_ROWS * 5, abs=1)  # all but the smallest one that was kept


def test_a_batch_that_keeps_nothing_leaves_the_threshold_alone(make_coder: Make, at: At, x: Tensor) -> None:
    coder = make_coder("batch_topk", k=5.0)
    coder.loss(x, x, at())
    before = coder.threshold.clone()
    with torch.no_grad():
        coder.b_enc.fill_(-1000.0)
    step = coder.loss(x, x, at())
    step.losses["mse"].backward()
    assert not (step.codes.values > 0).any()
    assert torch.equal(coder.threshold, before)
    assert torch.equal(coder.W_enc.grad, torch.zeros_like(coder.W_enc))


def test_a_coefficient_of_zero_turns_the_auxiliary_loss_off(make_coder: Make, at: At, x: Tensor) -> None:
    coder = make_coder("batch_topk", k=5.0, aux_coefficient=0.0)
    assert coder.loss(x, x, at(*range(N_LATENTS))).losses.keys() == {"mse"}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("k", 0.0),
        ("k", -1.0),
        ("k", N_LATENTS + 1.0),
        ("k_aux", 0),
        ("threshold_decay", 1.0),
        ("threshold_decay", -0.1),
        ("aux_coefficient", -0.1),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(setting: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"coder\.{setting}.*{value:g}"):
        BatchTopKConfig(**{"n_latents": N_LATENTS, "k": 5.0} | {setting: value})
