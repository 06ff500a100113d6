"""A run that was killed or stopped goes on from its last checkpoint and ends with the same bits."""

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipelines import killing
from tests.pipelines.conftest import small_recipe
from unweave.errors import UserError
from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import build_plan, read_plan
from unweave.pipelines.resume import differences, resume
from unweave.pipelines.run_plan import run_plan
from unweave.storage.checkpoints import DamagedCheckpoint, checkpoints

QUIET = Watch(quiet=True)


def _interrupted(recipe: dict, out: Path) -> Path:
    """A run that Ctrl-C stopped early; it is whole and has a checkpoint."""
    metrics = out.with_name(out.name + ".partial") / "metrics.jsonl"

    def interrupt() -> None:
        while not metrics.is_file() or metrics.read_text().count("\n") < 3:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    run_plan(build_plan(recipe), out, QUIET)
    thread.join()
    return out


def _slow(recipe: dict) -> dict:
    """Long enough to be interrupted, with dead latents and what random things a step can have."""
    training = recipe["training"] | {"rows": 12_000, "resample_at": [0.6], "resample_rows": 500, "dead_window": 300}
    return recipe | {"training": training}


@pytest.fixture
def slow(recipe: dict) -> dict:
    return _slow(recipe)


@pytest.fixture(scope="module")
def file(model_folders: dict[str, Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = _slow(small_recipe(model_folders["llama"], text_file))
    return killing.write_recipe(recipe, tmp_path_factory.mktemp("recipes") / "small.toml")


@pytest.fixture(scope="module")
def whole(file: Path) -> Path:
    """A run that nobody disturbed."""
    return run_plan(read_plan(str(file), []), file.parent / "whole", QUIET)


@pytest.fixture(scope="module")
def stopped(model_folders: dict[str, Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that Ctrl-C stopped; tests go on with copies."""
    recipe = _slow(small_recipe(model_folders["llama"], text_file))
    return _interrupted(recipe, tmp_path_factory.mktemp("interrupted") / "stopped")


@pytest.mark.parametrize(
    "when",
    [pytest.param("first steps", marks=pytest.mark.slow), "middle", pytest.param("measuring", marks=pytest.mark.slow)],
)
def test_a_killed_run_ends_with_the_bits_of_one_that_was_not(
    file: Path, whole: Path, tmp_path: Path, when: str
) -> None:
    moments: dict[str, Callable[[Path, float], bool]] = {
        "first steps": lambda folder, _: killing.lines_of_metrics(folder) >= 2,
        "middle": lambda folder, _: killing.lines_of_metrics(folder) >= 12,
        "measuring": lambda folder, _: (folder / "manifest.json").is_file(),
    }
    out = tmp_path / "killed"
    killing.killed(file, out, moments[when])
    assert not out.exists()
    resume(out, QUIET)
    killing.assert_same(out, whole)


@pytest.mark.slow
def test_killed_at_any_of_twenty_moments_it_ends_with_the_same_bits(file: Path, tmp_path: Path) -> None:
    seconds = killing.run(file, tmp_path / "whole")
    draw = random.Random(7)
    for i in range(20):
        moment = draw.uniform(0.2, 1.0) * seconds
        out = tmp_path / f"killed{i}"
        killing.killed(file, out, lambda _, gone, moment=moment: gone >= moment)
        killing.resumed(file, out)
        killing.assert_same(out, tmp_path / "whole")
        shutil.rmtree(out)


def test_after_ctrl_c_the_run_is_whole_and_goes_on_with_the_same_bits(
    stopped: Path, whole: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(stopped, tmp_path / "stopped")
    assert len(checkpoints(out / "checkpoints")) == 1
    assert (out / "report" / "index.html").is_file()
    resume(out, QUIET)
    killing.assert_same(out, whole)


def test_a_changed_recipe_is_shown_and_refused_unless_asked_for(stopped: Path, tmp_path: Path) -> None:
    out = shutil.copytree(stopped, tmp_path / "stopped")
    with pytest.raises(UserError, match=r"training.lr: 0.001 -> 0.002; pass --allow-changes"):
        resume(out, QUIET, overrides=["training.lr=2e-3"])
    resume(out, QUIET, overrides=["training.lr=2e-3"], allow_changes=True)
    assert "lr = 0.002" in (out / "config.toml").read_text()


def test_a_change_that_does_not_fit_the_checkpoint_is_refused(stopped: Path, tmp_path: Path) -> None:
    out = shutil.copytree(stopped, tmp_path / "stopped")
    with pytest.raises(UserError, match="does not fit"):
        resume(out, QUIET, overrides=["coder.n_latents=70"], allow_changes=True)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_the_one_before_used_only_when_asked_for(
    slow: dict, whole: Path, tmp_path: Path
) -> None:
    out = _interrupted(slow | {"checkpoints": {"every_minutes": 1e-6}}, tmp_path / "stopped")
    newest = checkpoints(out / "checkpoints")[-1]
    content = (newest / "state/state.safetensors").read_bytes()
    (newest / "state/state.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedCheckpoint, match=f"{newest.name}.*damaged.*--allow-previous"):
        resume(out, QUIET)
    resume(out, QUIET, allow_previous=True)
    assert (out / "coder/weights.safetensors").read_bytes() == (whole / "coder/weights.safetensors").read_bytes()


def test_where_there_is_nothing_to_resume_one_line_says_so(tmp_path: Path, whole: Path) -> None:
    for path in (tmp_path / "none", whole):
        with pytest.raises(UserError, match="there is nothing to resume"):
            resume(path, QUIET)
    assert (whole / "coder").is_dir()


def test_checkpoints_that_are_to_stay_lie_at_equal_distances(slow: dict, tmp_path: Path) -> None:
    out = run_plan(build_plan(slow | {"checkpoints": {"kept": 4}}), tmp_path / "kept", QUIET)
    steps = [int(path.name.removeprefix("step-")) for path in checkpoints(out / "checkpoints")]
    assert steps == [31, 61, 91, 120], "each is the first logged step from a quarter of the run on"
    with pytest.raises(UserError, match="is complete: all 120 steps are done"):
        resume(out, QUIET)


def test_a_disk_that_is_full_costs_the_checkpoint_and_not_the_training(
    slow: dict, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resource = pytest.importorskip("resource")
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        size = (whole / "metrics.jsonl").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (max(size, 30_000), limit[1]))
        recipe = slow | {"checkpoints": {"every_minutes": 1e-6}}
        with pytest.raises((UserError, OSError)):  # the reports need more than that in one file, the training does not
            run_plan(build_plan(recipe), tmp_path / "full", Watch())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert "no checkpoint after step" in capsys.readouterr().err
    partial = tmp_path / "full.partial"
    assert (partial / "coder/weights.safetensors").read_bytes() == (whole / "coder/weights.safetensors").read_bytes()


def test_differences_name_each_setting_with_both_values() -> None:
    before = {"seed": 0, "training": {"lr": 1e-3, "rows": 7}, "coder": {"k": 7}}
    after = {"seed": 1, "training": {"lr": 2e-3, "rows": 7}, "coder": {"type": "topk"}}
    assert differences(before, after) == [
        "seed: 0 -> 1",
        "training.lr: 0.001 -> 0.002",
        "coder.k: 7 -> default",
        "coder.type: default -> topk",
    ]
