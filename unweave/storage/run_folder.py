"""A run: a folder that can be re-run from its own config.toml, with everything that was made and measured."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.formats.native import coder_checksum, read_coder
from unweave.storage.index_folder import FOLDER, LatentIndex
from unweave.storage.results import read_results, read_suites

CHECKPOINTS = "checkpoints"
"""Folder of a run in which its checkpoints lie."""


class Run:
    """Reads a finished run."""

    def __init__(self, path: str | Path) -> None:
        """``path`` is a folder that ``unweave train`` made."""
        self.path = Path(path).expanduser()
        if not self.path.is_dir():
            raise UserError(f"there is no run folder {str(path)!r}; `unweave train` makes one")
        if not (self.path / "config.toml").is_file():
            raise UserError(
                f"{str(path)!r} is not a run (it has no config.toml); give a folder made by `unweave train`"
            )

    @cached_property
    def coder(self) -> SparseCoder:
        """The trained coder, in units of the model's activations."""
        return read_coder(self.path / "coder")

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def results(self) -> dict[str, Any]:
        """Figures by name, NaN where one has no meaning, and all else that ``storage.results.Results`` has."""
        return read_results(self.path).flat()

    @property
    def suites(self) -> dict[str, Any]:
        """What suites beyond the core figures have found, by suite and coder; empty where none was measured."""
        return {suite: {name: asdict(its) for name, its in of.items()} for suite, of in read_suites(self.path).items()}

    @property
    def manifest(self) -> dict[str, Any]:
        """Versions, seed, device, data hash and times."""
        return self._json("manifest.json")

    @property
    def curve(self) -> list[dict[str, float]]:
        """The lines of metrics.jsonl."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        try:
            return [{name: float(value) for name, value in json.loads(line).items()} for line in lines]
        except (ValueError, AttributeError) as error:
            raise UserError(f"{str(path)!r} is damaged; remove its broken line, or train again") from error

    @cached_property
    def latents(self) -> LatentIndex:
        """The record of every latent: ``run.latents[123]``."""
        index = LatentIndex(self.path / FOLDER)
        if index.manifest["coder"] != coder_checksum(self.path / "coder"):
            raise UserError(f"{str(index.folder)!r} is of another coder; `unweave index` on the run makes it anew")
        return index

    @property
    def has_index(self) -> bool:
        """Whether ``unweave index`` has made the records of its latents."""
        return (self.path / FOLDER).is_dir()

    def _json(self, name: str) -> dict[str, Any]:
        try:
            values = json.loads((self.path / name).read_text())
        except FileNotFoundError as error:
            raise UserError(f"{str(self.path)!r} has no {name}; train the run again") from error
        except ValueError as error:
            raise UserError(f"{str(self.path / name)!r} is damaged; train the run again") from error
        if not isinstance(values, dict):
            raise UserError(f"{str(self.path / name)!r} is damaged; train the run again")
        return values


@contextmanager
def new_run_folder(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to write a run into; it takes its own name only when the block ends well.

    Until then it is called ``<name>.partial``. When the block fails, the partial folder is removed unless it holds a
    checkpoint or a trained coder, so that nothing is left half-written and nothing that took long is lost.
    """
    check_free(path, overwrite=overwrite)
    partial = partial_folder(path)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot write to {str(path)!r}: {error.strerror}; choose another --out") from error
    try:
        yield partial
    except BaseException:
        if not _is_worth_keeping(partial):
            shutil.rmtree(partial)
        raise
    _publish(partial, path)


def unfinished_run(path: Path) -> Path:
    """Where a run lies that was cut short or stopped early; raises ``UserError`` where there is none to go on with."""
    partial = partial_folder(path)
    if (partial / "config.toml").is_file():
        return partial
    if (path / CHECKPOINTS).is_dir():
        return path
    raise UserError(f"there is nothing to resume at {str(path)!r}: no checkpoint, and no run that was cut short")


@contextmanager
def reopened_run_folder(path: Path) -> Iterator[Path]:
    """The folder of an unfinished run, to go on with it; a failure leaves it as it is then, under its partial name."""
    folder, partial = unfinished_run(path), partial_folder(path)
    if folder != partial:
        folder.replace(partial)
    yield partial
    _publish(partial, path)


def partial_folder(path: Path) -> Path:
    """Where a run is until it is whole."""
    return path.with_name(path.name + ".partial")


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raise ``UserError`` unless a run may be written to ``path``; only a run is ever overwritten."""
    partial = partial_folder(path)
    if _is_worth_keeping(partial):
        raise UserError(
            f"{str(partial)!r} holds a run that was cut short; go on with `unweave train --resume {path}`, or remove it"
        )
    if not path.exists():
        return
    if not overwrite:
        raise UserError(f"{str(path)!r} exists; choose another --out, or pass --overwrite to replace it")
    if not path.is_dir() or (any(path.iterdir()) and not (path / "config.toml").is_file()):
        raise UserError(f"{str(path)!r} is not a run, so it is not overwritten; choose another --out")


def _publish(partial: Path, path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
    partial.replace(path)


def _is_worth_keeping(folder: Path) -> bool:
    return any(folder.glob("**/weights.safetensors")) or any(folder.glob(f"{CHECKPOINTS}/step-*"))
