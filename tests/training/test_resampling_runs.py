"""Resampling within a run: when it happens, what it reads, and what the learning rate does."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training import runs
from unweave.errors import UserError
from unweave.training.config import TrainingConfig
from unweave.training.loop import new_trainee, train
from unweave.training.step import NotFinite
from unweave.training.trainee import Trainee

RESAMPLING = TrainingConfig(
    rows=40 * 100,
    batch=100,
    buffer=200,
    lr=1e-3,
    warm_up=0.0,
    decay=0.0,
    clip=0.0,
    beta1=0.0,
    beta2=0.0,
    dead_window=500,
    resample_at=(0.25,),
    resample_rows=1_000,
    resample_warm_up=0.2,
    log_every=1,
)


def _with_silent_latents(config: TrainingConfig = RESAMPLING, **settings: Any) -> Trainee:
    trainee = new_trainee("relu", runs.new_coder("relu", **settings).double(), runs.sample(), config)
    with torch.no_grad():
        trainee.coder.b_enc[[3, 62]] = -1e3
    return trainee


def test_dead_latents_are_resampled_at_their_time_from_rows_that_are_not_trained_on() -> None:
    trainee = _with_silent_latents()
    stream = runs.Counted(runs.data(100, size=100))
    dead_before = None
    for report in train([trainee], stream, RESAMPLING):
        dead = trainee.dead.mask.nonzero().flatten().tolist()
        if report.step == 9:
            dead_before = dead
            assert {3, 62} <= set(dead)
            assert stream.n_taken == 10
        if report.step == 10:
            assert dead_before is not None
            assert not set(dead) & set(dead_before), "they count as if they had fired"
            assert trainee.dead.ids.tolist() == [], "for the losses of dead latents too, before the next look"
            assert (trainee.coder.b_enc[dead_before].abs() <= 2 * RESAMPLING.lr).all(), "set to 0, and a step since"
            assert stream.n_taken == 21, "ten batches of 100 rows were only looked at"
            assert report.rows == 1100
    assert (trainee.coder.b_enc[[3, 62]] > -1).all()


def test_resampled_latents_come_to_life() -> None:
    trainee = _with_silent_latents()
    list(train([trainee], runs.data(100, size=100), RESAMPLING))
    x, _ = trainee.rows(next(runs.data(1, seed=99)))
    fired = set(trainee.coder.encode(x).latent_ids.tolist())
    assert {3, 62} <= fired


def test_after_resampling_the_learning_rate_is_a_tenth_and_rises_again() -> None:
    """With no memory, Adam moves every number by the learning rate, so the weights themselves tell it."""
    trainee = _with_silent_latents()
    moved, reported, before = [], [], trainee.coder.b_dec.detach().clone()
    for report in train([trainee], runs.data(100, size=100), RESAMPLING):
        moved.append((trainee.coder.b_dec - before).abs().median().item())
        reported.append(report.metrics["relu"]["lr"])
        before = trainee.coder.b_dec.detach().clone()
    # a fifth of 40 steps from the tenth on
    by_hand = [1e-3] * 10 + [1e-3 * (0.1 + 0.9 * i / 8) for i in range(8)] + [1e-3] * 22
    assert moved == pytest.approx(by_hand, rel=1e-4)
    assert reported == pytest.approx(by_hand, rel=1e-12)


def test_without_dead_latents_the_rows_for_resampling_are_left_out_and_nothing_is_slowed() -> None:
    """So that a coder does not depend on whether another one beside it has dead latents."""
    plain = TrainingConfig(rows=20 * 100, batch=100, buffer=200, dead_window=10**9)
    config = replace(plain, resample_at=(0.5,), resample_rows=1_000)
    resampling, without = runs.trainee_of("relu", config=config), runs.trainee_of("relu", config=plain)
    stream = runs.Counted(runs.data(100, size=100))
    list(train([resampling], stream, config))
    assert stream.n_taken == 30
    batches = list(runs.data(30, size=100))
    list(train([without], [*batches[:11], *batches[21:]], plain))
    for a, b in zip(*map(runs.weights_of, (resampling.coder, without.coder)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["kron", "matching_pursuit", "archetypal"])
def test_resampling_a_coder_whose_latents_have_no_weights_of_their_own_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"training\.resample_at gives latents weights .* coder {name}"):
        runs.trainee_of(name, config=RESAMPLING)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_rows_among_those_that_are_looked_at_for_resampling_stop_the_run_too(bad: float) -> None:
    trainee = _with_silent_latents()

    def batches() -> Iterator[dict[str, Tensor]]:
        for number, batch in zip(count(), runs.data(100, size=100), strict=False):
            if number == 13:
                batch["here"][[5, 7]] = bad
            yield batch

    with pytest.raises(NotFinite, match="step 10, coder relu: activations at here hold NaN or infinity in 2 of 100"):
        list(train([trainee], batches(), RESAMPLING))
