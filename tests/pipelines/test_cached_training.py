"""Training from a cache of activations gives what training from the model gives, and needs no model."""

import shutil
from pathlib import Path

import pytest
import tomli_w
import torch

from unweave.errors import UserError
from unweave.pipelines.harvest import harvest
from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import build_plan
from unweave.pipelines.resume import resume
from unweave.pipelines.run_plan import run_plan
from unweave.storage.checkpoints import checkpoints
from unweave.storage.run_folder import Run

QUIET = Watch(quiet=True)


@pytest.fixture
def cached(recipe: dict, tmp_path: Path) -> dict:
    """The small recipe with a cache of its rows in full precision, and some more than it needs."""
    (tmp_path / "small.toml").write_text(tomli_w.dumps(recipe))
    harvest(tmp_path / "small.toml", out=tmp_path / "cache", rows=9000, dtype="float32", shard_rows=1000, quiet=True)
    return recipe | {"cache": str(tmp_path / "cache")}


def test_a_coder_trained_from_a_cache_is_the_one_trained_from_the_model(
    recipe: dict, cached: dict, tmp_path: Path
) -> None:
    live = Run(run_plan(build_plan(recipe), tmp_path / "live", QUIET))
    from_cache = Run(run_plan(build_plan(cached), tmp_path / "cached", QUIET))
    ours, theirs = from_cache.coder.state_dict(), live.coder.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert from_cache.results == live.results
    assert from_cache.manifest["cache"]["rows"] >= 9000
    assert (from_cache.path / "report" / "index.html").is_file()


def test_without_the_model_the_coder_is_trained_and_one_line_says_that_it_was_not_measured(
    cached: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cached["model"] = cached["model"] | {"name": str(tmp_path / "gone")}
    run = Run(run_plan(build_plan(cached), tmp_path / "cached", Watch()))
    assert "trained but not measured: " in capsys.readouterr().err
    assert run.manifest["rows_trained"] == 3000
    assert run.coder.n_latents == 63
    with pytest.raises(UserError, match=r"has no results\.json; `unweave evaluate` on the run measures it"):
        _ = run.results


def test_a_site_that_is_not_in_the_cache_is_refused(cached: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the cache has no site 'layers.2.resid_post'.*layers.1.resid_post"):
        run_plan(build_plan(cached | {"site": "layers.2.resid_post"}), tmp_path / "other", QUIET)


def test_a_run_does_not_go_on_with_other_rows_than_it_began_with(recipe: dict, cached: dict, tmp_path: Path) -> None:
    out = run_plan(build_plan(cached | {"checkpoints": {"kept": 2}}), tmp_path / "cached", QUIET)
    shutil.rmtree(checkpoints(out / "checkpoints")[-1])
    shutil.rmtree(tmp_path / "cache")
    harvest(tmp_path / "small.toml", out=tmp_path / "cache", rows=2000, dtype="bfloat16", quiet=True)
    with pytest.raises(UserError, match="the text or the cache is not the one that the run began with"):
        resume(out, QUIET)
