"""A run that is stopped and resumed from its state on disk ends as the run that never stopped, to the last bit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.training import runs
from unweave.coders import trainable_architectures
from unweave.errors import UserError
from unweave.training.config import TrainingConfig
from unweave.training.loop import Progress, batches_before, new_trainee, resumed_trainee, train
from unweave.training.trainee import Trainee

CONFIG = TrainingConfig(rows=30 * 64, batch=64, buffer=200, lr=1e-2, dead_window=200, log_every=1, average=0.9)
SPARE = {"relu": {"variant": "april_2024"}, "jumprelu": {"variant": "anthropic"}, "matryoshka": {"prefixes": "random"}}
"""Other forms of trainable_architectures, which keep other things."""
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [(name, {}, {}) for name in sorted(trainable_architectures())]
CASES += [(name, settings, {}) for name, settings in SPARE.items()]
CASES += [("topk", {"input_scale": "whiten"}, {"optimizer": "muon", "accumulate": 3})]
CASES += [
    ("relu", {}, {"optimizer": "sign_sgd", "lr": 1e-3}),
    ("gated", {}, {"optimizer": "adamw", "weight_decay": 0.1}),
    ("gated", {}, {"optimizer": "adamw", "weight_decay": 0.1, "beta1": 0.0}),
    ("topk", {"aux_coefficient": 0.0}, {"beta1": 0.0, "batch": 8, "rows": 30 * 8}),
    ("relu", {}, {"beta1": 0.0, "resample_at": (0.3,), "resample_rows": 100, "dead_window": 64}),
]
CASES += [
    ("batch_topk", {}, {"resample_at": (0.3, 0.7), "resample_rows": 100, "resample_warm_up": 0.3, "restarts": 1}),
    ("relu", {}, {"resample_at": (0.3, 0.45), "resample_rows": 100, "resample_warm_up": 0.3, "dead_window": 64}),
]


def _silenced(trainee: Trainee) -> Trainee:
    with torch.no_grad():
        for name in ("b_enc", "b_p"):
            if hasattr(trainee.coder, name):
                getattr(trainee.coder, name)[:9] -= 1.0
    return trainee


def _on(trainee: Trainee, start: int, end: int) -> list[Progress]:
    """Steps from ``start`` to before ``end``."""
    config = trainee.config
    batches = list(runs.data(60, size=config.batch))[batches_before(start, config) :]
    reports = train([trainee], batches, config, start=start)
    return [next(reports) for _ in range(start, end)]


@pytest.mark.parametrize(("n_steps", "cut", "is_double"), [(30, 13, False), (12, 5, True)])
@pytest.mark.parametrize(
    ("name", "settings", "training"), CASES, ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)]
)
def test_steps_up_to_a_cut_saved_loaded_and_the_others_are_all_steps(
    name: str,
    settings: dict[str, Any],
    training: dict[str, Any],
    n_steps: int,
    cut: int,
    is_double: bool,
    tmp_path: Path,
) -> None:
    config = replace(CONFIG, **training)

    def coder(seed: int) -> Any:
        made = runs.new_coder(name, seed=seed, **settings)
        return made.double() if is_double else made

    sample = {site: rows.double() if is_double else rows for site, rows in runs.sample().items()}
    straight = _silenced(new_trainee(name, coder(7), sample, config))
    expected = _on(straight, 0, n_steps)

    stopped = _silenced(new_trainee(name, coder(7), sample, config))
    first = _on(stopped, 0, cut)
    save_file({key: tensor.contiguous() for key, tensor in stopped.state().items()}, tmp_path / "state.safetensors")
    torch.manual_seed(63)
    resumed = resumed_trainee(name, coder(8), config, load_file(tmp_path / "state.safetensors"))
    assert first + _on(resumed, cut, n_steps) == expected
    ours, theirs = resumed.state(), straight.state()
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        assert torch.equal(ours[key], tensor) and ours[key].dtype == tensor.dtype, key
    assert expected[-1].rows == n_steps * config.batch
    if config.resample_at:
        assert straight.resampled >= 0


@pytest.mark.parametrize("wiring", ["skip_transcoder", "crosscoder"])
@pytest.mark.parametrize("scale", ["whiten", "none"])
def test_scalings_of_every_site_are_in_the_state(wiring: str, scale: str) -> None:
    coder = runs.new_coder(wiring=runs.WIRINGS[wiring], input_scale=scale)
    trainee = new_trainee("a", coder, runs.sample(), runs.CONFIG)
    fresh = runs.new_coder(wiring=runs.WIRINGS[wiring], input_scale=scale, seed=8)
    resumed = resumed_trainee("a", fresh, runs.CONFIG, trainee.state())
    for ours, theirs in zip(resumed.rows(runs.sample()), trainee.rows(runs.sample()), strict=True):
        assert torch.equal(ours, theirs)


def test_a_run_that_was_done_is_not_done_again() -> None:
    trainee, stream = runs.trainee_of(), runs.Counted(runs.data(3))
    assert list(train([trainee], stream, runs.CONFIG, start=runs.CONFIG.n_steps)) == []
    assert stream.n_taken == 0


def test_batches_that_were_taken_are_counted_with_those_for_resampling() -> None:
    config = replace(CONFIG, resample_at=(0.1, 0.5), resample_rows=130)
    assert [batches_before(step, config) for step in (0, 3, 4, 15, 16, 30)] == [0, 3, 7, 18, 22, 36]
    stream = runs.Counted(runs.data(60, size=64))
    for report in train([runs.trainee_of("relu", config=config)], stream, config):
        assert stream.n_taken == batches_before(report.step + 1, config)


def _without(state: dict[str, Tensor]) -> None:
    del state["optimizer.W_enc.mean"]


def _with_another(state: dict[str, Tensor]) -> None:
    state["average.W_enc"] = state["coder.W_enc"]


def _with_shorter(state: dict[str, Tensor]) -> None:
    state["dead.silent_rows"] = state["dead.silent_rows"][:-1]


def _of_another_coder(state: dict[str, Tensor]) -> None:
    state["coder.W_enc"] = state["coder.W_enc"][:-1]


def _of_another_wiring(state: dict[str, Tensor]) -> None:
    del state["writes.0.factor"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without, r"saved state of coder batch_topk lacks 'optimizer\.W_enc\.mean'; resume with the settings"),
        (_with_another, r"has an unknown 'average\.W_enc'"),
        (_with_shorter, r"'dead\.silent_rows' of coder batch_topk has shape \[63\], the saved one \[62\]"),
        (_of_another_coder, r"does not fit coder batch_topk: .*W_enc"),
        (_of_another_wiring, r"does not say how site 0 of writes is scaled"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(damage: Callable[[dict[str, Tensor]], None], message: str) -> None:
    state = runs.trainee_of().state()
    damage(state)
    with pytest.raises(UserError, match=message):
        resumed_trainee("batch_topk", runs.new_coder(seed=8), runs.CONFIG, state)
