import pytest
import torch
from torch import Tensor

from unweave.coders import Moment
from unweave.coders.batch_topk import BatchTopK, BatchTopKConfig
from unweave.errors import UserError

N_ROWS, N_LATENTS, WIDTH = 100, 63, 7


def _coder(**settings: float) -> BatchTopK:
    coder = BatchTopK(BatchTopKConfig(**{"n_latents": N_LATENTS, "k": 5, "k_aux": 4} | settings), WIDTH).double()
    with torch.no_grad():
        coder.W_enc.add_(0.3 * torch.randn_like(coder.W_enc))
        coder.b_enc.copy_(0.1 * torch.randn_like(coder.b_enc))
        coder.b_dec.copy_(torch.randn_like(coder.b_dec))
    return coder


def _rows(n_rows: int = N_ROWS) -> Tensor:
    return torch.randn(n_rows, WIDTH, dtype=torch.float64)


def _alive() -> Tensor:
    return torch.zeros(N_LATENTS, dtype=torch.bool)


def _largest(pre: Tensor, n: int, dim: int | None = None) -> Tensor:
    """0/1 matrix of the n largest positive entries, of each row or of all."""
    flat = pre.flatten() if dim is None else pre
    kept = torch.zeros_like(flat).scatter(-1, flat.argsort(-1, descending=True)[..., :n], 1.0)
    return kept.view_as(pre) * (pre > 0)


def _plain_losses(coder: BatchTopK, x: Tensor, dead: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The formulas of the module's docstring with dense matrices and autograd; b_dec learns from the decoder alone."""
    W_enc, b_enc, W_dec, b_dec = leaves = [p.detach().clone().requires_grad_() for p in coder.parameters()]
    pre = (x - b_dec.detach()) @ W_enc.T + b_enc
    f = pre * _largest(pre.detach(), len(x) * coder.config.k)
    x_hat = f @ W_dec + b_dec
    losses = {"mse": ((x - x_hat) ** 2).sum(1).mean()}
    if dead.any():
        e = (x - x_hat).detach()
        pre_dead = pre[:, dead]
        n = min(coder.config.k_aux, int(dead.sum()))
        e_hat = (pre_dead * _largest(pre_dead.detach(), n, dim=1)) @ W_dec[dead]
        normaliser = ((x - x.mean(0)) ** 2).sum() / len(x)
        share = ((e - e_hat) ** 2).sum() / ((e - e.mean(0)) ** 2).sum()
        losses["aux"] = coder.config.aux_coefficient * normaliser * share
    sum(losses.values()).backward()
    return losses, dict(zip(("W_enc", "b_enc", "W_dec", "b_dec"), (leaf.grad for leaf in leaves), strict=True))


@pytest.mark.parametrize("n_dead", [0, 1, 3, 20, N_LATENTS])
@pytest.mark.parametrize("k", [1, 5, N_LATENTS])
def test_losses_and_gradients_are_those_of_the_dense_formulas(n_dead: int, k: int) -> None:
    coder, x = _coder(k=k), _rows()
    assert [name for name, _ in coder.named_parameters()] == ["W_enc", "b_enc", "W_dec", "b_dec"]
    dead = _alive()
    dead[torch.randperm(N_LATENTS)[:n_dead]] = True
    step = coder.loss(x, Moment(0.5, dead))
    torch.stack(list(step.losses.values())).sum().backward()
    losses, gradients = _plain_losses(coder, x, dead)
    assert step.losses.keys() == losses.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(step.losses[name], loss.detach(), rtol=1e-10, atol=1e-12, check_dtype=True)
    for name, gradient in gradients.items():
        torch.testing.assert_close(getattr(coder, name).grad, gradient, rtol=1e-9, atol=1e-10)


def test_training_keeps_k_latents_per_row_on_average_and_lets_hard_rows_have_more() -> None:
    coder, x = _coder(), _rows()
    x[:7] *= 5
    codes = coder.loss(x, Moment(0.0, _alive())).codes
    assert len(codes.values) == N_ROWS * 5
    per_row = codes.row_offsets.diff()
    assert per_row[:7].double().mean() > per_row[7:].double().mean()


def test_the_threshold_is_the_running_mean_of_the_smallest_value_kept() -> None:
    coder = _coder(threshold_decay=0.9)
    by_hand = None
    for _ in range(7):
        codes = coder.loss(_rows(), Moment(0.0, _alive())).codes
        smallest = codes.values.min().item()
        by_hand = smallest if by_hand is None else 0.9 * by_hand + 0.1 * smallest
        assert coder.threshold.item() == pytest.approx(by_hand, rel=1e-12)


def test_in_use_an_entry_is_active_when_it_exceeds_the_threshold() -> None:
    coder, x = _coder(), _rows()
    coder.loss(x, Moment(0.0, _alive()))
    pre = (x - coder.b_dec) @ coder.W_enc.T + coder.b_enc
    expected = torch.where(pre > coder.threshold, pre, torch.zeros_like(pre))
    torch.testing.assert_close(coder.encode(x).dense(), expected.detach(), rtol=1e-12, atol=1e-12)
    assert len(coder.encode(x).values) == pytest.approx(N_ROWS * 5, abs=1)  # all but the smallest one that was kept


def test_a_batch_that_keeps_nothing_leaves_the_threshold_alone() -> None:
    coder = _coder()
    coder.loss(_rows(), Moment(0.0, _alive()))
    before = coder.threshold.clone()
    with torch.no_grad():
        coder.b_enc.fill_(-1000.0)
    step = coder.loss(_rows(), Moment(0.0, _alive()))
    step.losses["mse"].backward()
    assert len(step.codes.values) == 0
    assert torch.equal(coder.threshold, before)
    assert torch.equal(coder.W_enc.grad, torch.zeros_like(coder.W_enc))


def test_a_coefficient_of_zero_turns_the_auxiliary_loss_off() -> None:
    assert _coder(aux_coefficient=0.0).loss(_rows(), Moment(0.0, ~_alive())).losses.keys() == {"mse"}


@pytest.mark.parametrize(
    ("setting", "value"),
    [("k", 0), ("k", -1), ("k", N_LATENTS + 1), ("k_aux", 0), ("threshold_decay", 1.0), ("threshold_decay", -0.1)],
)
def test_a_setting_out_of_range_is_named_with_its_value(setting: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"coder\.{setting}.*{value}"):
        BatchTopKConfig(**{"n_latents": N_LATENTS, "k": 5} | {setting: value})


def test_a_negative_auxiliary_coefficient_is_refused() -> None:
    with pytest.raises(UserError, match="aux_coefficient"):
        BatchTopKConfig(aux_coefficient=-0.1)
