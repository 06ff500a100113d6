"""Coders that are trained side by side are, to the last bit, those trained alone, each by its own settings."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.training import runs
from unweave.errors import UserError
from unweave.training.config import TrainingConfig
from unweave.training.loop import new_trainee, train
from unweave.training.trainee import Trainee

SHARED = TrainingConfig(
    rows=40 * 100,
    batch=100,
    buffer=200,
    dead_window=300,
    resample_at=(0.25, 0.5),
    resample_rows=500,
    resample_warm_up=0.2,
    log_every=1,
)
SILENT = {"relu": 5, "topk": 11, "batch_topk": 0}
"""How many latents of each coder are silenced at the start."""
OWN: dict[str, dict[str, Any]] = {
    "relu": {"lr": 1e-2, "clip": 0.5},
    "topk": {"beta1": 0.0, "decay": 0.5, "average": 0.9},
    "batch_topk": {"dead_window": 10**9, "optimizer": "muon"},
}


def _trainee(name: str) -> Trainee:
    trainee = new_trainee(name, runs.new_coder(name), runs.sample(), replace(SHARED, **OWN[name]))
    with torch.no_grad():
        trainee.coder.b_enc[: SILENT[name]] = -1e3
    return trainee


def _trained(*names: str) -> tuple[list[Trainee], list[dict[str, dict[str, float]]]]:
    trainees = [_trainee(name) for name in names]
    reports = list(train(trainees, runs.data(100, size=100), SHARED))
    return trainees, [report.metrics for report in reports]


def test_a_coder_beside_others_is_the_coder_trained_alone_with_resampling_and_settings_of_its_own() -> None:
    together, side_by_side = _trained(*SILENT)
    assert together[0].resampled >= 0 and together[1].resampled >= 0 and together[2].resampled < 0
    for trainee in together:
        (alone,), metrics = _trained(trainee.name)
        state = alone.state()
        assert state.keys() == trainee.state().keys()
        for key, tensor in trainee.state().items():
            assert torch.equal(tensor, state[key]), (trainee.name, key)
        assert [report[trainee.name] for report in side_by_side] == [report[trainee.name] for report in metrics]


def test_each_coder_reports_the_rate_of_its_own_schedule_with_the_cut_after_resampling() -> None:
    _, reports = _trained("relu", "batch_topk")
    rates = {name: [report[name]["lr"] for report in reports] for name in ("relu", "batch_topk")}
    # the coder with dead latents is resampled at step 10 of 40: from a tenth up again over a fifth of the run
    assert rates["relu"][10:32] == pytest.approx([1e-2 * (0.1 + 0.9 * min(1.0, i / 8)) for i in range(22)])
    assert rates["batch_topk"][10:32] == pytest.approx([1e-3] * 22)


@pytest.mark.parametrize(
    ("name", "value"),
    [("rows", 4001), ("batch", 50), ("log_every", 3), ("resample_at", (0.25,)), ("resample_rows", 499)],
)
def test_what_decides_which_rows_are_read_must_be_the_same_for_all(name: str, value: Any) -> None:
    other = runs.trainee_of("relu", config=replace(SHARED, **{name: value}))
    with pytest.raises(UserError, match=rf"need the same training\.{name}: coder relu has"):
        next(train([_trainee("topk"), other], runs.data(1), SHARED))
