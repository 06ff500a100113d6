"""A run in a process of its own that is killed, resumed, and compared with one that nobody disturbed."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import tomli_w

COMMAND = [sys.executable, "-m", "unweave.cli.main", "train"]


def write_recipe(recipe: dict, path: Path) -> Path:
    """A recipe whose every logged step is followed by a checkpoint."""
    path.write_text(tomli_w.dumps(recipe | {"checkpoints": {"every_minutes": 1e-6}}))
    return path


def run(recipe: Path, out: Path) -> float:
    """Train without disturbance; returns how many seconds that took."""
    started = time.monotonic()
    subprocess.run([*COMMAND, str(recipe), "--out", str(out), "--quiet"], check=True, capture_output=True)
    return time.monotonic() - started


def killed(recipe: Path, out: Path, now: Callable[[Path, float], bool]) -> None:
    """Train, and kill without warning once ``now`` says so of the unfinished folder and the seconds gone."""
    process = subprocess.Popen(
        [*COMMAND, str(recipe), "--out", str(out), "--quiet"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    started = time.monotonic()
    while process.poll() is None:
        if now(out.with_name(out.name + ".partial"), time.monotonic() - started):
            process.kill()
        time.sleep(0.005)
    process.wait()


def resumed(recipe: Path, out: Path) -> None:
    """Go on until the run is whole; a run that was killed before it had written anything starts anew."""
    partial = out.with_name(out.name + ".partial")
    if out.exists():
        return  # it was killed after its last act
    if not (partial / "config.toml").is_file():
        run(recipe, out)
        return
    done = subprocess.run([*COMMAND, "--resume", str(out), "--quiet"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def lines_of_metrics(folder: Path) -> int:
    """Steps logged so far by a run's only coder."""
    path = folder / "metrics.jsonl"
    return path.read_text().count("\n") if path.is_file() else 0


def assert_same(one: Path, other: Path) -> None:
    """Weights, metrics and results are the same to the last bit; no checkpoint is left."""
    for name in ("coder/weights.safetensors", "metrics.jsonl", "results.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), f"{name} differs"
    assert not (one / "checkpoints").exists()
