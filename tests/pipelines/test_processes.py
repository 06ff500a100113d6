"""Training by torchrun: the coder is whole, a process that dies ends the run, and any number of processes goes on."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tomli_w
import torch
from safetensors.torch import load_file

from tests.pipelines.conftest import small_recipe
from unweave.errors import UserError
from unweave.pipelines.train import train
from unweave.storage.run_folder import Run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="torchrun's gloo processes need a POSIX system")

RECIPE = """
site = "layers.1.resid_post"
[coder]
type = "batch_topk"
k = 8
n_latents = 128
[model]
sequences = 4
[packing]
context = 64
[training]
rows = 12288
batch = 256
buffer = 4096
log_every = 2
latent_parts = 2
[checkpoints]
kept = 8
[evaluation]
tokens = 600
splice_tokens = 200
[index]
tokens = 600
examples = 2
"""
ALONE = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def _command(count: int, *words: str | Path) -> list[str]:
    by_torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return [sys.executable, *(by_torchrun if count > 1 else []), "-m", "unweave", "train", "--quiet", *map(str, words)]


def _train(count: int, *words: str | Path) -> None:
    done = subprocess.run(_command(count, *words), env=ALONE, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe, and its run on two processes that share the latents."""
    folder = tmp_path_factory.mktemp("processes")
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE)
    _train(2, recipe, "--out", folder / "run")
    return recipe, folder / "run"


@pytest.fixture(scope="module")
def killed(undisturbed: tuple[Path, Path]) -> Path:
    """The same run, one of whose processes was killed after a checkpoint."""
    recipe, run = undisturbed
    path = run.with_name("killed")
    partial = path.with_name("killed.partial")
    with subprocess.Popen(_command(2, recipe, "--out", path), env=ALONE, stderr=subprocess.PIPE, text=True) as process:
        while not any((partial / "checkpoints").glob("step-*")):
            assert process.poll() is None, "it ended before it wrote a checkpoint"
            time.sleep(0.02)
        os.kill(_child_of(process.pid, rank=1), signal.SIGKILL)
        died = time.monotonic()
        _, errors = process.communicate(timeout=60)
        assert process.returncode != 0 and time.monotonic() - died < 60
    assert "error: another process has ended or hangs; go on from the last checkpoint with `unweave" in errors
    assert not path.exists()
    return partial


def test_the_run_holds_a_whole_coder_and_says_how_many_processes_made_it(undisturbed: tuple[Path, Path]) -> None:
    run = Run(undisturbed[1])
    assert run.coder.n_latents == 128 and run.coder.W_dec.shape[0] == 128
    assert run.manifest["processes"] == 2 and run.manifest["rows_trained"] == 12288
    assert run.curve[-1]["rows"] == 12288
    assert run.results["explained_variance"] == pytest.approx(run.curve[-1]["explained_variance"], abs=0.15)
    assert not any(path.name.startswith(".") for path in (run.path / "coder").iterdir())


@pytest.mark.slow
def test_processes_that_share_the_rows_make_the_same_coder(undisturbed: tuple[Path, Path]) -> None:
    recipe, run = undisturbed
    _train(2, recipe, "training.latent_parts=1", "--out", run.with_name("rows"))
    other, coder = Run(run.with_name("rows")), Run(run).coder
    for name, tensor in other.coder.state_dict().items():
        torch.testing.assert_close(tensor, coder.state_dict()[name], rtol=1e-3, atol=1e-3)
    assert other.curve[-1]["mse"] == pytest.approx(Run(run).curve[-1]["mse"], rel=1e-4)


@pytest.mark.slow
def test_a_run_of_which_a_process_died_goes_on_to_the_same_bits(
    undisturbed: tuple[Path, Path], killed: Path, tmp_path: Path
) -> None:
    _, run = undisturbed
    shutil.copytree(killed, tmp_path / "again.partial")
    _train(2, "--resume", tmp_path / "again")
    assert (tmp_path / "again" / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    weights = load_file(run / "coder" / "weights.safetensors")
    for name, tensor in load_file(tmp_path / "again" / "coder" / "weights.safetensors").items():
        assert torch.equal(tensor, weights[name]), name


@pytest.mark.slow
def test_another_number_of_processes_goes_on_with_it(
    undisturbed: tuple[Path, Path], killed: Path, tmp_path: Path
) -> None:
    shutil.copytree(killed, tmp_path / "alone.partial")
    _train(1, "--resume", tmp_path / "alone", "training.latent_parts=1", "--allow-changes")
    run, other = Run(undisturbed[1]), Run(tmp_path / "alone")
    assert other.manifest["processes"] == 1 and [line["step"] for line in other.curve] == [
        line["step"] for line in run.curve
    ]
    assert other.results["explained_variance"] == pytest.approx(run.results["explained_variance"], abs=0.05)


@pytest.mark.slow
def test_a_model_spread_over_processes_makes_the_coder_of_one_process(
    model_folders: dict[str, Path], text_file: Path, tmp_path: Path
) -> None:
    values = small_recipe(model_folders["llama"], text_file)
    values["coder"] = values["coder"] | {"n_latents": 64}
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(tomli_w.dumps(values))
    _train(2, recipe, "training.latent_parts=2", "model.spread=processes", "--out", tmp_path / "spread")
    alone = train(recipe, out=tmp_path / "alone", quiet=True)
    spread = Run(tmp_path / "spread")
    assert [line["mse"] for line in spread.curve] == pytest.approx([line["mse"] for line in alone.curve], rel=1e-3)
    for name in ("explained_variance", "l0", "ce_clean", "ce_spliced"):
        assert spread.results[name] == pytest.approx(alone.results[name], rel=1e-2), name
    promoted = [{token.token_id for token in run.latents[3].promoted} for run in (spread, alone)]
    assert len(promoted[0] & promoted[1]) >= 4, "the logit lens has the whole unembedding"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.spread=processes"], "set training.latent_parts to their number"),
        (["model.spread=processes", "training.latent_parts=2"], "needs as many processes"),
    ],
)
def test_a_model_is_not_spread_over_one_process(words: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("latent_parts = 2", ""))
    with pytest.raises(UserError, match=message):
        train(tmp_path / "recipe.toml", *words, out=tmp_path / "run", quiet=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["training.latent_parts=3"], "training.latent_parts=3 must divide the number of processes, which is 2"),
        pytest.param(
            ["model.spread=processes", "model.name={gpt2}", "packing.context=32"],
            "cannot load a language model from '{gpt2}': `tp_size=2` was requested, but `GPT2LMHeadModel`",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_does_not_fit_the_processes_is_said_once(
    words: list[str], message: str, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    *words, message = (text.format(gpt2=model_folders["gpt2"]) for text in (*words, message))
    command = _command(2, tmp_path / "recipe.toml", *words, "--out", tmp_path / "run")
    done = subprocess.run(command, env=ALONE, capture_output=True, text=True, timeout=100)
    assert done.returncode != 0 and done.stderr.count("error: ") == 1 and f"error: {message}" in done.stderr
    assert not (tmp_path / "run").exists() and not (tmp_path / "run.partial").exists()


def test_parts_without_torchrun_are_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    with pytest.raises(UserError, match="needs as many processes; run torchrun --nproc-per-node 2"):
        train(tmp_path / "recipe.toml", out=tmp_path / "run", quiet=True)


def _child_of(torchrun: int, rank: int) -> int:
    """The process of that rank."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == torchrun and f"\0RANK={rank}\0".encode() in b"\0" + (path / "environ").read_bytes():
                return int(path.name)
        except OSError:
            continue
    raise AssertionError(f"torchrun has no process of rank {rank}")
