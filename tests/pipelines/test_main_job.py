"""The main job from text to report, on a tiny model."""

import json
import math
import os
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w
import torch

import unweave
from unweave.coders import Origin, Port
from unweave.errors import UserError
from unweave.formats.texts import read_corpus
from unweave.pipelines.evaluate import evaluate_run
from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import build_job, read_job
from unweave.pipelines.train import run_job
from unweave.pipelines.workbench import set_up
from unweave.storage.results import read_results, write_results
from unweave.storage.run_folder import Run

QUIET = Watch(quiet=True)


def test_a_run_holds_everything_that_was_made_and_measured(run: Run) -> None:
    names = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()}
    expected = {
        "config.toml",
        "manifest.json",
        "metrics.jsonl",
        "results.json",
        "index/manifest.json",
        "report/index.html",
    }
    assert expected | {"coder/config.toml", "coder/weights.safetensors", "coder/README.md"} <= names
    assert not list(run.path.parent.glob("*.partial"))


def test_results_have_the_promised_keys_and_are_finite(run: Run) -> None:
    keys = "l0 explained_variance mse dead_share dense_share ce_clean ce_spliced kl loss_recovered_zero"
    for key in [*keys.split(), "loss_recovered_mean"]:
        assert math.isfinite(run.results[key]), key
        assert run.results["standard_errors"][key] >= 0
    assert run.results["n_tokens"] >= 1500


def test_training_lowers_the_error(run: Run) -> None:
    assert run.curve[-1]["mse"] < 0.7 * run.curve[0]["mse"]
    assert run.curve[-1]["rows"] == 3000
    assert run.curve[-1]["l0"] == pytest.approx(7.0)


def test_the_results_are_those_of_the_saved_coder_on_held_out_text(run: Run) -> None:
    """Explained variance and L0 worked out again from the files, all rows at once."""
    _assert_results_are_those_of_the_files(run)


def _assert_results_are_those_of_the_files(run: Run) -> None:
    bench = set_up(read_job(str(run.path / "config.toml"), []).recipe)
    coder = unweave.load(run.path)
    reads, writes = ([port.site for port in side] for side in (coder.wiring.reads, coder.wiring.writes))
    read, truth = [], []
    for batch in bench.token_batches(read_corpus(bench.recipe.text).held_out, 8):
        captured = bench.model.capture(batch.token_ids, reads + writes)
        for side, rows in ((reads, read), (writes, truth)):
            rows.append(torch.cat([captured[site][batch.is_content] for site in side], dim=1))
        if sum(map(len, read)) >= 1500:
            break
    x, y = torch.cat(read), torch.cat(truth).double()
    error = (y - coder(x)).square().sum() / (y - y.mean(0)).square().sum()
    assert run.results["explained_variance"] == pytest.approx(1 - error.item(), abs=1e-5)
    assert run.results["l0"] == pytest.approx(coder.encode(x).values.shape[0] / len(x))


_WIRED = {
    "transcoder": {"site": "layers.1.mlp_in", "target": "layers.1.mlp_out"},
    "skip_transcoder": {"site": "layers.1.mlp_in", "target": "layers.1.mlp_out", "skip": True},
    "crosscoder": {"site": ["layers.0.resid_post", "layers.1.resid_post"]},
}


@pytest.mark.parametrize("kind", _WIRED)
def test_every_wiring_is_trained_saved_loaded_and_evaluated_from_a_recipe(
    recipe: dict, kind: str, tmp_path: Path
) -> None:
    recipe["training"]["lr"] = 1e-2
    file = tmp_path / "wired.toml"
    file.write_text(tomli_w.dumps(recipe | _WIRED[kind]))
    run = unweave.train(file, out=tmp_path / "run", quiet=True)

    coder = unweave.load(run.path)
    assert coder.wiring.kind == kind
    if kind == "crosscoder":
        assert coder.wiring.reads == coder.wiring.writes == tuple(Port(site, 24) for site in _WIRED[kind]["site"])
    else:
        assert coder.wiring.reads == (Port("layers.1.mlp_in", 24),)
        assert coder.wiring.writes == (Port("layers.1.mlp_out", 24),)
    assert (coder.W_skip is not None) == (kind == "skip_transcoder")
    assert read_job(str(run.path / "config.toml"), []) == read_job(str(file), [])

    _assert_results_are_those_of_the_files(run)
    assert run.curve[-1]["mse"] < 0.8 * run.curve[0]["mse"]
    assert run.results["explained_variance"] > 0.2
    assert math.isfinite(run.results["loss_recovered_mean"])
    assert all(len(record.promoted) == 5 for record in run.latents)
    assert evaluate_run(run.path, [], QUIET).results == run.results
    page = (run.path / "report" / "index.html").read_text()
    assert "layers.1.mlp_in to layers.1.mlp_out" in page or "layers.0.resid_post, layers.1.resid_post" in page
    assert kind.replace("_", " ") in page


def test_a_skip_path_explains_more_than_the_latents_alone(recipe: dict, tmp_path: Path) -> None:
    recipe["training"]["lr"] = 1e-2
    explained = {}
    for kind in ("transcoder", "skip_transcoder"):
        run = run_job(build_job(recipe | _WIRED[kind]), tmp_path / kind, QUIET)
        explained[kind] = run.results["explained_variance"]
    assert explained["skip_transcoder"] > explained["transcoder"] + 0.02


@pytest.mark.parametrize("scale", ["unit_square", "sqrt_width", "whiten", "none"])
def test_every_scale_of_rows_runs_the_same_job(recipe: dict, scale: str, tmp_path: Path) -> None:
    recipe["coder"]["input_scale"] = scale
    run = run_job(build_job(recipe), tmp_path / "scaled", QUIET)
    assert run.coder.config.input_scale == scale
    _assert_results_are_those_of_the_files(run)
    assert run.results["explained_variance"] > 0.3


def test_dead_latents_are_resampled_in_the_same_job(recipe: dict, tmp_path: Path) -> None:
    recipe["coder"] = {"type": "relu", "n_latents": 63, "l1_coefficient": 5.0}
    recipe["training"] |= {"rows": 6000, "lr": 1e-2, "dead_window": 300, "resample_at": [0.5], "resample_rows": 700}
    run = run_job(build_job(recipe), tmp_path / "resampled", QUIET)
    dead = [line["dead_share"] for line in run.curve]
    half = next(i for i, line in enumerate(run.curve) if line["rows"] > 3000)
    assert dead[half - 1] > 0.5
    assert dead[half] < 0.1
    assert run.curve[-1]["rows"] == 6000
    assert read_job(str(run.path / "config.toml"), []).recipe.training.resample_at == (0.5,)


def test_a_run_is_repeated_bit_for_bit_from_its_own_config(run: Run, tmp_path: Path) -> None:
    again = run_job(read_job(str(run.path / "config.toml"), []), tmp_path / "again", QUIET)
    ours, theirs = run.coder.state_dict(), again.coder.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.results == run.results


def test_another_seed_gives_another_coder(recipe: dict, run: Run, tmp_path: Path) -> None:
    recipe["seed"] = 1
    other = run_job(build_job(recipe), tmp_path / "other", QUIET)
    assert not torch.equal(other.coder.W_enc, run.coder.W_enc)


def test_every_latent_has_a_record_whose_density_agrees_with_the_results(run: Run) -> None:
    records = list(run.latents)
    assert [record.latent for record in records] == list(range(63))
    assert sum(record.density for record in records) == pytest.approx(run.results["l0"])
    assert sum(record.n_fires == 0 for record in records) / 63 == pytest.approx(run.results["dead_share"])
    assert all(len(record.promoted) == 5 for record in records)
    assert max(len(record.examples) for record in records) == 3


def test_evaluating_again_changes_nothing_and_overrides_do(run: Run) -> None:
    before = run.results
    assert evaluate_run(run.path, [], QUIET).results == before
    fewer = evaluate_run(run.path, ["evaluation.tokens=300"], QUIET).results
    assert fewer["n_tokens"] < before["n_tokens"]
    assert evaluate_run(run.path, [], QUIET).results == before


@pytest.mark.parametrize(
    "override", ["site=layers.0.resid_post", "target=layers.0.mlp_out", "coder.k=3", "training.rows=7", "model.name=x"]
)
def test_evaluate_refuses_what_would_change_the_training(run: Run, override: str) -> None:
    with pytest.raises(UserError, match="would change what was trained"):
        evaluate_run(run.path, [override], QUIET)


def test_a_held_out_text_that_is_too_short_is_named_before_any_work(recipe: dict, tmp_path: Path) -> None:
    lines = [json.dumps({"text": "a long line of text " * 200 if i else "hi"}) for i in range(2)]
    text = tmp_path / "two.jsonl"
    text.write_text("\n".join(lines))
    recipe["text"]["source"] = str(text)
    with pytest.raises(
        UserError, match=r"of the documents (held out|to train on): the text has \d+ tokens, fewer than"
    ):
        run_job(build_job(recipe), tmp_path / "bad", QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["two.jsonl"]


def test_a_run_cut_short_after_training_is_not_removed_by_the_next(run: Run, recipe: dict, tmp_path: Path) -> None:
    shutil.copytree(run.path / "coder", tmp_path / "again.partial" / "coder")
    with pytest.raises(UserError, match="holds a run that was cut short"):
        run_job(build_job(recipe), tmp_path / "again", QUIET)
    assert (tmp_path / "again.partial" / "coder" / "weights.safetensors").is_file()


def test_the_job_is_one_call_from_python(recipe: dict, tmp_path: Path) -> None:
    file = tmp_path / "small.toml"
    file.write_text(build_job(recipe).to_toml())
    run = unweave.train(file, "coder.k=3", out=tmp_path / "run", quiet=True)
    assert run.coder.config.k == 3
    assert unweave.load(run.path).origin == run.coder.origin


def test_a_run_in_a_folder_with_an_odd_name_is_read_like_any_other(run: Run, tmp_path: Path) -> None:
    odd = tmp_path / "d ü ?#%41"
    shutil.copytree(run.path, odd)
    assert Run(odd).latents[1] == run.latents[1]
    assert Run(odd).results == run.results


def test_figures_without_a_meaning_are_null_on_disk_and_nan_when_read(run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    results = read_results(run.path)
    write_results(copy, replace(results, figures=results.figures | {"loss_recovered_mean": math.nan}))
    assert json.loads((copy / "results.json").read_text())["figures"]["loss_recovered_mean"] is None
    assert math.isnan(Run(copy).results["loss_recovered_mean"])


def test_the_relu_architecture_runs_the_same_job(recipe: dict, tmp_path: Path) -> None:
    recipe["coder"] = {"type": "relu", "n_latents": 63, "l1_coefficient": 0.02}
    run = run_job(build_job(recipe), tmp_path / "relu", QUIET)
    assert type(run.coder).__name__ == "Relu"
    assert run.results["explained_variance"] > 0.3


@pytest.mark.parametrize("site", ["layers.0.attn.z", "layers.1.mlp.post", "layers.0.mlp_in", "blocks.1.hook_mlp_out"])
def test_other_sites_run_the_same_job(recipe: dict, site: str, tmp_path: Path) -> None:
    recipe["site"] = site
    recipe["training"]["rows"] = 1500
    run = run_job(build_job(recipe), tmp_path / "run", QUIET)
    assert run.coder.origin == Origin(recipe["model"]["name"])
    assert run.coder.site == site.replace("blocks.1.hook_", "layers.1.")
    assert bool(run.latents[0].promoted) == (site != "layers.0.mlp_in")


def test_a_model_in_half_precision_runs_the_same_job(recipe: dict, run: Run, tmp_path: Path) -> None:
    recipe["model"]["dtype"] = "bfloat16"
    half = run_job(build_job(recipe), tmp_path / "half", QUIET)
    assert half.coder.W_dec.dtype == torch.float32
    assert half.results["explained_variance"] == pytest.approx(run.results["explained_variance"], abs=0.05)


def test_ctrl_c_ends_training_early_and_measures_what_there_is(recipe: dict, tmp_path: Path) -> None:
    recipe["training"]["rows"] = 10_000_000
    metrics = tmp_path / "long.partial" / "metrics.jsonl"

    def interrupt() -> None:
        while not (metrics.exists() and len(metrics.read_text().splitlines()) > 3):
            stop.wait(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    stop = threading.Event()
    thread = threading.Thread(target=interrupt)
    thread.start()
    run = run_job(build_job(recipe), tmp_path / "long", QUIET)
    thread.join()
    assert 0 < run.manifest["rows_trained"] < 10_000_000
    assert run.results["l0"] > 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_text_shorter_than_the_run_is_read_again(recipe: dict, tmp_path: Path) -> None:
    recipe["training"]["rows"] = 40_000
    recipe["evaluation"]["splice_tokens"] = 100
    assert run_job(build_job(recipe), tmp_path / "epochs", QUIET).manifest["rows_trained"] == 40_000


@pytest.mark.parametrize(
    ("section", "key", "value", "says"),
    [
        (None, "site", "layers.7.resid_post", "has no site 'layers.7.resid_post'"),
        (None, "site", ["layers.0.resid_post", "layers.7.resid_post"], "has no site 'layers.7.resid_post'"),
        (None, "site", ["layers.0.resid_post", "blocks.0.hook_resid_post"], "the sites of a coder must differ"),
        (None, "target", "layers.1.mlp_ot", "has no site 'layers.1.mlp_ot'"),
        (None, "target", "layers.1.resid_post", "the sites of a coder must differ, got layers.1.resid_post"),
        ("model", "name", "./missing", "no model folder './missing'"),
        ("text", "source", "missing.txt", "no text 'missing.txt'"),
        ("packing", "context", 64, "longer than the 63 tokens"),
        ("model", "device", "abacus", "device 'abacus' cannot be used"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing_behind(
    recipe: dict, section: str | None, key: str, value: object, says: str, tmp_path: Path
) -> None:
    (recipe if section is None else recipe[section])[key] = value
    with pytest.raises(UserError, match=r".+") as error:
        run_job(build_job(recipe), tmp_path / "bad", QUIET)
    assert says in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_text_is_named_and_leaves_nothing_behind(recipe: dict, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n")
    recipe["text"]["source"] = str(empty)
    with pytest.raises(UserError, match="is empty"):
        run_job(build_job(recipe), tmp_path / "bad", QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["empty.txt"]


def test_a_run_is_only_replaced_when_asked_and_other_folders_never(run: Run, recipe: dict, tmp_path: Path) -> None:
    job = build_job(recipe)
    with pytest.raises(UserError, match="pass --overwrite"):
        run_job(job, run.path, QUIET)
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="is not a run"):
        run_job(job, tmp_path, QUIET, overwrite=True)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_the_metrics_file_is_one_json_object_a_line_with_rising_rows(run: Run) -> None:
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["rows"] for line in lines] == sorted({line["rows"] for line in lines})
    assert all({"step", "lr", "mse", "l0", "explained_variance", "dead_share"} <= line.keys() for line in lines)
