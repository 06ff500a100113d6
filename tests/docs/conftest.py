"""A user's folder with a finished run, made by the first command of the documentation, smaller than it says."""

import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unweave.cli.main import main

FIRST_COMMAND = "unweave train demo"
SMALL_TRAINING = [
    "packing.context=64",
    "model.sequences=8",
    "coder.n_latents=100",
    "training.rows=2048",
    "training.batch=256",
    "training.buffer=1024",
    "index.tokens=2000",
]
SMALL_EVALUATION = ["evaluation.tokens=2000", "evaluation.splice_tokens=250"]
SMALL_BENCH = ["steps=20", "heldout=1000", "tries=2"]
SMALL = {
    "train": SMALL_TRAINING + SMALL_EVALUATION,
    "sweep": SMALL_TRAINING + SMALL_EVALUATION,
    "evaluate": SMALL_EVALUATION,
    "bench": SMALL_BENCH,
    "index": ["index.tokens=2000"],
}
"""Overrides put behind the commands that would take minutes; all others run exactly as they are written."""


@pytest.fixture(scope="session")
def run_command() -> Callable[[str, Path], int]:
    """Run an ``unweave`` command line in a folder, in this process, and give its exit code."""

    def run(line: str, folder: Path) -> int:
        arguments = shlex.split(line, comments=True)[1:]
        overrides = SMALL.get(arguments[0], []) if arguments else []
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["unweave", *arguments, *overrides])
            main()
        code = ended.value.code
        return code if isinstance(code, int) else int(code is not None)

    return run


@pytest.fixture(scope="session")
def user_folder(tmp_path_factory: pytest.TempPathFactory, run_command: Callable[[str, Path], int]) -> Path:
    folder = tmp_path_factory.mktemp("user")
    assert run_command(FIRST_COMMAND, folder) == 0
    return folder


@pytest.fixture
def folder(user_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the user's folder, as the working directory."""
    copy = tmp_path / "user"
    shutil.copytree(user_folder, copy)
    monkeypatch.chdir(copy)
    yield copy


@pytest.fixture
def first_command() -> str:
    """The command that has made the run in the user's folder."""
    return FIRST_COMMAND
