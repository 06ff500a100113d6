"""Whole runs whose objective runs the model, runs that start from a finished coder, and how both go on after a stop."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

from unweave.errors import UserError
from unweave.pipelines.harvest import harvest
from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import build_plan
from unweave.pipelines.resume import resume
from unweave.pipelines.row_source import open_source
from unweave.pipelines.run_plan import run_plan
from unweave.pipelines.training_run import TrainingRun, new_training_run
from unweave.storage.checkpoints import checkpoints
from unweave.storage.run_folder import Run
from unweave.training import loop
from unweave.training.loop import Progress

QUIET = Watch(quiet=True)
FINE_TUNE = {"kl": 1.0, "balance": True}


def changed(recipe: dict, **sections: Any) -> dict:
    """The recipe with other settings, section by section."""
    merged = dict(recipe)
    for name, value in sections.items():
        merged[name] = {**merged.get(name, {}), **value} if isinstance(value, dict) else value
    return merged


@pytest.fixture
def short(recipe: dict) -> dict:
    """Thirty steps of three sequences of 32 tokens; what is measured is little."""
    evaluation = {"tokens": 600, "splice_tokens": 300}
    return changed(recipe, training={"rows": 3000, "buffer": 500, "dead_window": 600}, evaluation=evaluation)


def run_of(recipe: dict, out: Path) -> Run:
    return Run(run_plan(build_plan(recipe), out, QUIET))


def trained(recipe: dict) -> tuple[TrainingRun, list[Progress]]:
    """A training whose coders are neither measured nor written."""
    plan = build_plan(recipe)
    run = new_training_run(plan, open_source(plan))
    return run, list(loop.train(run.trainees, run.batches(), plan.recipe.training))


def curve_of(recipe: dict) -> list[dict[str, float]]:
    """The figures of a training of one coder."""
    return [figures for report in trained(recipe)[1] for figures in report.metrics.values()]


def assert_same(one: Path, other: Path) -> None:
    for name in ("coder/weights.safetensors", "metrics.jsonl", "results.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), f"{name} differs"


def test_a_coder_is_trained_end_to_end_and_its_divergence_falls(short: dict, tmp_path: Path) -> None:
    out = changed(short, objective={"reconstruction": 0.5, "kl": 1.0, "downstream": 0.5}, training={"lr": 1e-2})
    curve = run_of(out, tmp_path / "run").curve
    for name in ("kl", "downstream", "mse"):
        assert curve[-1][name] < 0.8 * curve[0][name]
    assert [line["rows"] for line in curve] == [100 * line["step"] + 100 for line in curve]


@pytest.mark.parametrize(
    "wiring",
    [
        {"site": "layers.0.resid_mid", "target": "layers.1.mlp_out", "skip": True},
        {"site": ["layers.0.resid_post", "layers.1.resid_post"]},
    ],
)
def test_every_wiring_is_trained_end_to_end(short: dict, wiring: dict) -> None:
    coder = {"type": "topk", "input_scale": "whiten"}
    curve = curve_of(changed(short, **wiring, objective={"kl": 1.0}, coder=coder, training={"lr": 1e-2}))
    assert curve[-1]["kl"] < curve[0]["kl"]


@pytest.mark.parametrize(
    "packing", [{"max_norm": 1.5}, {"cross_documents": False}, {"prepend_bos": False, "exclude_first_position": True}]
)
def test_rows_may_be_left_out_in_every_way(short: dict, packing: dict) -> None:
    training = {"rows": 1000, "resample_at": [0.5], "resample_rows": 200, "lr": 1e-2}
    curve = curve_of(changed(short, packing=packing, objective={"kl": 1.0}, training=training))
    assert curve[-1]["mse"] < curve[0]["mse"]


def test_a_run_that_is_resumed_ends_with_the_same_bits(run: Run, short: dict, tmp_path: Path) -> None:
    """From a finished coder, with dead latents and with parts of a batch."""
    training = {"resample_at": [0.3], "resample_rows": 200, "dead_window": 300, "accumulate": 2}
    start = str(shutil.copytree(run.path, tmp_path / "start"))
    recipe = changed(short, start=start, objective=FINE_TUNE, training=training, checkpoints={"kept": 2})
    whole = run_plan(build_plan(recipe), tmp_path / "whole", QUIET)
    cut = shutil.copytree(whole, tmp_path / "cut")
    assert len(checkpoints(cut / "checkpoints")) == 2
    shutil.rmtree(checkpoints(cut / "checkpoints")[-1])
    shutil.rmtree(tmp_path / "start")  # weights come from the checkpoint, not from where they started
    (cut / "coder/weights.safetensors").unlink()
    resume(cut, QUIET)
    assert_same(cut, whole)


def test_a_fine_tune_starts_as_the_finished_coder(run: Run, short: dict, tmp_path: Path) -> None:
    training = {"rows": 100, "lr": 1e-9}
    recipe = changed(short, start=str(run.path), training=training, objective=FINE_TUNE)
    weights = run_of(recipe, tmp_path / "again").coder.state_dict()
    for key, tensor in run.coder.state_dict().items():
        if key != "threshold":  # which follows the rows that it sees
            torch.testing.assert_close(weights[key], tensor, rtol=1e-4, atol=1e-5)


def test_fine_tuning_brings_the_divergence_down(run: Run, short: dict) -> None:
    curve = curve_of(changed(short, start=str(run.path / "coder"), objective=FINE_TUNE, training={"log_every": 1}))
    kl = [figures["kl"] for figures in curve]
    assert sum(kl[-5:]) < 0.9 * sum(kl[:5])
    assert kl[0] < 5 * kl[-1], "it did not start from nothing"


def test_coders_of_a_grid_start_from_the_same_coder_and_share_the_clean_pass(run: Run, short: dict) -> None:
    recipe = changed(short, start=str(run.path), objective=FINE_TUNE, training={"rows": 500})
    grid, _ = trained(changed(recipe, training={"lr": [1e-4, 1e-3]}))
    (alone,) = trained(changed(recipe, training={"lr": 1e-3}))[0].trainees
    ours = grid.trainees[1].coder.state_dict()
    assert [trainee.name for trainee in grid.trainees] == ["lr0.0001", "lr0.001"]
    for key, tensor in alone.coder.state_dict().items():
        assert torch.equal(ours[key], tensor), key


def test_a_cache_has_no_model_to_run(recipe: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run the model, which a cache has not; leave cache empty"):
        build_plan(changed(recipe, cache="acts", objective={"kl": 1.0}))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"training": {"batch": 31}},
            r"take whole sequences of packing\.context=32 tokens, training\.batch=31 has not even one",
        ),
        (
            {"training": {"accumulate": 4}},
            r"training\.accumulate=4 is more than the sequences of a step: 3 of packing\.context=32",
        ),
        ({"objective": {"kl": [0.5, 1.0]}}, r"'objective\.kl' has several values, but coders of one pass share it"),
        ({"objective": {"kl": 0.0, "balance": True}}, r"objective\.balance=true needs objective\.kl"),
        ({"objective": {"kll": 1.0}}, r"unknown setting 'objective\.kll'; did you mean 'kl'"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_loaded(recipe: dict, sections: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_plan(changed(changed(recipe, objective={"kl": 1.0}), **sections))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"start": "nowhere"}, r"there is no folder 'nowhere'"),
        ({"start": "RUN", "coder": {"n_latents": 64}}, "start from has n_latents 63, the recipe asks for 64"),
        ({"start": "RUN", "site": "layers.0.resid_post"}, "sites to read layers.1.resid_post .* asks for layers.0"),
        ({"site": "layers.2.resid_post", "objective": {"downstream": 1.0}}, "no block ends behind layers.2.resid_post"),
    ],
)
def test_what_does_not_fit_the_model_or_the_start_is_said_before_training(
    run: Run, recipe: dict, tmp_path: Path, sections: dict, message: str
) -> None:
    sections = {key: str(run.path) if value == "RUN" else value for key, value in sections.items()}
    with pytest.raises(UserError, match=message):
        run_plan(build_plan(changed(recipe, **sections)), tmp_path / "run", QUIET)
    assert not (tmp_path / "run").exists()


def test_a_start_goes_with_a_cache(run: Run, short: dict, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(tomli_w.dumps(short))
    harvest(tmp_path / "small.toml", out=tmp_path / "cache", rows=3000, dtype="float32", shard_rows=1000, quiet=True)
    recipe = changed(short, cache=str(tmp_path / "cache"), training={"rows": 1000})
    started, new = (curve_of(changed(recipe, start=start))[0] for start in (str(run.path), ""))
    assert started["explained_variance"] > new["explained_variance"] + 0.2
