"""What stops a run or keeps it from starting: bad activations, losses that overflow, settings out of range."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tests.training import runs
from unweave.coders import trainable_architectures
from unweave.errors import UserError
from unweave.training.config import TrainingConfig
from unweave.training.loop import new_trainee, train
from unweave.training.step import NotFinite


@pytest.mark.parametrize("name", sorted(trainable_architectures()))
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_bad_activations_stop_the_run_by_name_and_leave_the_weights_of_the_step_before(bad: float, name: str) -> None:
    config = TrainingConfig(rows=60 * 512, batch=512, buffer=1024, log_every=1)
    trainee = runs.trainee_of(name, config=config)

    def batches() -> Iterator[dict[str, Tensor]]:
        yield from runs.data(3)
        batch = next(runs.data(1, seed=63))
        batch["here"][[7, 100, 511], 3] = bad
        yield batch

    def weights() -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in trainee.coder.named_parameters() if p.requires_grad}

    before: dict[str, Tensor] = {}
    with pytest.raises(NotFinite) as error:
        for _ in train([trainee], batches(), config):
            before = weights()
    assert str(error.value).startswith(
        f"step 3, coder {name}: activations at here hold NaN or infinity in 3 of 512 rows; check"
    )
    for key, after in weights().items():
        assert after.isfinite().all(), key
        if key not in ("threshold", "mixing", "relaxation"):  # these are put within their bounds when a loss is asked
            assert torch.equal(after, before[key]), key


def test_the_site_that_holds_bad_rows_is_the_one_that_is_named() -> None:
    trainee = new_trainee("trans", runs.new_coder(wiring=runs.WIRINGS["transcoder"]), runs.sample(), runs.CONFIG)
    batch = next(runs.data(1))
    batch["there"][63] = float("nan")
    with pytest.raises(NotFinite, match="step 0, coder trans: activations at there hold NaN or infinity in 1 of 512"):
        list(train([trainee], [batch], runs.CONFIG))


def test_a_loss_that_overflows_stops_the_run_with_another_advice() -> None:
    trainee = runs.trainee_of("relu")
    with torch.no_grad():
        trainee.coder.W_dec.mul_(1e30)
    before = [parameter.detach().clone() for parameter in trainee.coder.parameters()]
    with pytest.raises(NotFinite, match=r"step 0, coder relu: the loss is not finite; lower training\.lr"):
        list(train([trainee], runs.data(1), runs.CONFIG))
    for after, parameter in zip(before, trainee.coder.parameters(), strict=True):
        assert torch.equal(after, parameter)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_refused_at_the_start(bad: float) -> None:
    for wiring, site in (("sae", "here"), ("transcoder", "there"), ("crosscoder", "there")):
        sample = runs.sample()
        sample[site][7, 3] = bad
        with pytest.raises(UserError, match=f"activations at {site} have a spread of"):
            new_trainee("relu", runs.new_coder("relu", runs.WIRINGS[wiring]), sample, runs.CONFIG)


def test_activations_that_never_vary_are_refused() -> None:
    with pytest.raises(UserError, match=r"activations at here have a spread of 0\.0"):
        new_trainee("relu", runs.new_coder("relu"), {"here": torch.ones(100, runs.WIDTH)}, runs.CONFIG)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": 0}, r"training\.rows must be more than 0, got 0"),
        ({"batch": -7}, r"training\.batch must be more than 0, got -7"),
        ({"lr": 0.0}, r"training\.lr must be more than 0, got 0\.0"),
        ({"log_every": 0}, r"training\.log_every must be more than 0, got 0"),
        ({"dead_window": 0}, r"training\.dead_window must be more than 0"),
        ({"batch": 63, "buffer": 125}, r"training\.buffer needs at least 2 batches of 63 rows, got 125"),
        (
            {"warm_up": 0.7, "decay": 0.4},
            r"training\.warm_up \+ training\.decay must lie in \[0, 1\], got 0\.7 \+ 0\.4",
        ),
        ({"warm_up": -0.1}, r"training\.warm_up"),
        ({"clip": -1.0}, r"training\.clip"),
        ({"beta1": 1.0}, r"training\.beta1"),
        ({"beta2": -0.1}, r"training\.beta2"),
        ({"lr": float("nan")}, r"training\.lr"),
        ({"resample_at": (0.25, 1.5)}, r"training\.resample_at holds shares .*between 0 and 1, got \(0\.25, 1\.5\)"),
        ({"resample_at": (0.0,)}, r"training\.resample_at"),
        ({"resample_rows": 0}, r"training\.resample_rows must be at least 1, got 0"),
        ({"resample_warm_up": -0.1}, r"training\.resample_warm_up must be in \[0, 1\], got -0\.1"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainingConfig(**settings)
