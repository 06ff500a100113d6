"""Resampling as Bricken et al. 2023 state it: what dead latents become, and the odds of the rows that they become."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from unweave.coders import Port, SparseCoder, Wiring
from unweave.coders.relu import Relu, ReluConfig
from unweave.coders.topk import TopK, TopKConfig
from unweave.training.optimizer import CoderAdam
from unweave.training.resampling import Draws, resample

WIDTH, N_LATENTS = 7, 63
DEAD = torch.tensor([0, 7, 30, 62])
LIVING = torch.tensor([i for i in range(N_LATENTS) if i not in DEAD.tolist()])


def _generator(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _coder(wiring: Wiring | None = None, **settings: Any) -> SparseCoder:
    """Encoder rows of many lengths, biases that are not 0."""
    coder = TopK(TopKConfig(n_latents=N_LATENTS, k=4, **settings), wiring or Wiring.sae(WIDTH, "here")).double()
    with torch.no_grad():
        coder.W_enc.mul_(0.5 + torch.rand(N_LATENTS, 1, dtype=torch.float64))
        coder.b_enc.normal_()
        coder.b_dec.normal_()
    return coder


def _stepped(coder: SparseCoder) -> CoderAdam:
    """An optimizer whose moments are none of them 0."""
    optimizer = CoderAdam(coder, (0.9, 0.99))
    for parameter in coder.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step(1e-3, 0.0)
    return optimizer


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.square().sum(1, keepdim=True).sqrt()


def test_dead_latents_read_and_write_the_direction_of_the_row_that_each_has_drawn() -> None:
    coder = _coder()
    optimizer = _stepped(coder)
    before = {name: parameter.detach().clone() for name, parameter in coder.named_parameters()}
    x = torch.randn(100, WIDTH, dtype=torch.float64)
    draws = Draws(4, _generator())
    assert draws.update(coder, x, x)
    assert draws.rows is not None
    drawn, _ = draws.rows
    assert all((x == row).all(1).any() for row in drawn)
    resample(coder, optimizer, DEAD, draws)

    directions = _unit(drawn - coder.b_dec.detach())
    torch.testing.assert_close(coder.W_dec[DEAD].detach(), directions, rtol=1e-12, atol=1e-12)
    mean_norm = before["W_enc"][LIVING].norm(dim=1).mean()
    torch.testing.assert_close(coder.W_enc[DEAD].detach(), 0.2 * mean_norm * directions, rtol=1e-12, atol=1e-12)
    assert coder.b_enc[DEAD].tolist() == [0.0] * 4
    for name in ("W_enc", "b_enc", "W_dec"):
        assert torch.equal(coder.get_parameter(name)[LIVING], before[name][LIVING])
        for moment in (optimizer.moments[name].mean, optimizer.moments[name].square):
            assert not moment[DEAD].any()
            assert (moment[LIVING] != 0).all()
    assert torch.equal(coder.b_dec, before["b_dec"])
    assert (optimizer.moments["b_dec"].mean != 0).all()


def test_a_transcoders_latents_read_what_was_read_and_write_what_was_to_be_written() -> None:
    coder = _coder(Wiring.transcoder(Port("in", 9), Port("out", WIDTH)))
    x, y = torch.randn(100, 9, dtype=torch.float64), torch.randn(100, WIDTH, dtype=torch.float64)
    draws = Draws(4, _generator())
    draws.update(coder, x, y)
    assert draws.rows is not None
    read, written = draws.rows
    assert all(((x == a).all(1) & (y == b).all(1)).any() for a, b in zip(read, written, strict=True)), "of one row"
    resample(coder, _stepped(coder), DEAD, draws)
    torch.testing.assert_close(coder.W_dec[DEAD].detach(), _unit(written), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(_unit(coder.W_enc[DEAD].detach()), _unit(read), rtol=1e-12, atol=1e-12)


def test_free_decoder_rows_get_the_mean_norm_of_living_ones() -> None:
    coder = _coder(decoder_norm="free", decoder_init_norm=0.1)
    x = torch.randn(100, WIDTH, dtype=torch.float64)
    draws = Draws(4, _generator())
    draws.update(coder, x, x)
    resample(coder, _stepped(coder), DEAD, draws)
    norms = coder.W_dec.norm(dim=1).detach()
    torch.testing.assert_close(norms[DEAD], norms[LIVING].mean().expand(4), rtol=1e-12, atol=0)


def test_where_all_latents_are_dead_all_get_finite_weights() -> None:
    coder = _coder()
    x = torch.randn(100, WIDTH, dtype=torch.float64)
    draws = Draws(N_LATENTS, _generator())
    draws.update(coder, x, x)
    resample(coder, _stepped(coder), torch.arange(N_LATENTS), draws)
    assert all(parameter.isfinite().all() for parameter in coder.parameters())


def _silent_coder() -> SparseCoder:
    """A coder that writes zeros, so that the loss of a row is its squared norm."""
    coder = Relu(ReluConfig(n_latents=N_LATENTS), Wiring.sae(WIDTH, "here")).double()
    with torch.no_grad():
        coder.b_enc.fill_(-1e9)
    return coder


def _counts(x: Tensor, parts: Sequence[int], n_draws: int) -> list[int]:
    """How often each row is drawn where the rows come in batches of these sizes."""
    draws = Draws(n_draws, _generator())
    for batch in x.split(list(parts)):
        draws.update(_silent_coder(), batch, batch)
    assert draws.rows is not None
    return [int((draws.rows[0] == row).all(1).sum()) for row in x]


@pytest.mark.parametrize("parts", [(20,), (1, 4, 15), (15, 4, 1), (1,) * 20], ids=str)
def test_rows_are_drawn_with_odds_of_their_squared_loss_however_they_are_cut_into_batches(parts: Sequence[int]) -> None:
    """A chi-squared test of 20,000 draws: odds by the loss itself, or favouring late batches, fail it by far."""
    x = torch.randn(20, WIDTH, dtype=torch.float64)
    squared_loss = x.square().sum(1).square()
    counts = _counts(x, parts, 20_000)
    expected = 20_000 * squared_loss / squared_loss.sum()
    assert chisquare(counts, expected.numpy()).pvalue > 0.01
    by_loss = 20_000 * x.square().sum(1) / x.square().sum()
    assert chisquare(counts, by_loss.numpy()).pvalue < 1e-9, "the test can tell the odds apart"


def test_draws_are_independent_of_each_other() -> None:
    """Whether one draw takes the first row says nothing of the next."""
    x = torch.ones(2, WIDTH, dtype=torch.float64)
    x[1] *= -1
    draws = Draws(4000, _generator())
    for row in x:
        draws.update(_silent_coder(), row[None], row[None])
    assert draws.rows is not None
    signs = draws.rows[0][:, 0]
    assert abs(signs.mean()) < 4 / math.sqrt(4000)
    assert abs((signs[1:] * signs[:-1]).mean()) < 4 / math.sqrt(4000)


def test_a_row_without_error_is_never_drawn() -> None:
    x = torch.randn(9, WIDTH, dtype=torch.float64)
    x[4] = 0
    assert _counts(x, (9,), 1000)[4] == 0
    assert _counts(x, (4, 1, 4), 1000)[4] == 0


def test_nothing_is_resampled_where_every_row_is_without_error() -> None:
    coder = _silent_coder()
    before = [parameter.detach().clone() for parameter in coder.parameters()]
    zeros = torch.zeros(9, WIDTH, dtype=torch.float64)
    draws = Draws(4, _generator())
    assert draws.update(coder, zeros, zeros)
    resample(coder, CoderAdam(coder, (0.9, 0.99)), DEAD, draws)
    assert all(torch.equal(a, b) for a, b in zip(before, coder.parameters(), strict=True))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rows_that_are_not_finite_are_told_and_not_drawn(bad: float) -> None:
    x = torch.randn(9, WIDTH, dtype=torch.float64)
    draws = Draws(4, _generator())
    assert draws.update(_silent_coder(), x, x)
    before = draws.rows
    spoilt = x.clone()
    spoilt[3, 2] = bad
    assert not draws.update(_silent_coder(), spoilt, spoilt)
    assert draws.rows is before
