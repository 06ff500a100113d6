"""Checkpoints of a run in training: folders from which it goes on with the same bits.

A checkpoint is a folder ``step-00000123`` with ``state.safetensors``, ``rows.safetensors`` (the shuffle buffer) and
``checkpoint.json``, which holds the checksums of both. It is written under a temporary name and renamed when all of it
is on disk, so a folder of that name is whole, or was altered later.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from unweave.errors import UserError
from unweave.formats.files import file_sha256

_FORMAT = 1
_FACTS = "checkpoint.json"
_TENSORS = ("state", "rows")


class Checkpoint(NamedTuple):
    """What a run needs to go on after a step."""

    step: int
    """Steps done."""
    state: Mapping[str, Tensor]
    """Coders, optimizers, counters, generators."""
    rows: Mapping[str, Tensor]
    """The shuffle buffer."""
    facts: dict[str, Any]
    """What is no tensor, as JSON."""


class DamagedCheckpoint(UserError):
    """A checkpoint is not what was written."""


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write into ``folder``; a checkpoint of the same step is replaced. Raises ``OSError`` where the disk is full."""
    path = folder / _name(checkpoint.step)
    partial = folder / f".{path.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        sums = {}
        for name in _TENSORS:
            file = partial / f"{name}.safetensors"
            tensors = {key: x.detach().contiguous().cpu() for key, x in getattr(checkpoint, name).items()}
            _save(tensors, file)
            _to_disk(file)
            sums[name] = file_sha256(file)
        facts = {"format": _FORMAT, "step": checkpoint.step, "sha256": sums, "facts": checkpoint.facts}
        (partial / _FACTS).write_text(json.dumps(facts, indent=1))
        _to_disk(partial / _FACTS)
        shutil.rmtree(path, ignore_errors=True)
        partial.replace(path)
        _to_disk(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def read_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint, its tensors on the CPU; raises ``DamagedCheckpoint`` where it is not what was written."""
    try:
        values = json.loads((path / _FACTS).read_text())
        step, sums, facts, version = (values[key] for key in ("step", "sha256", "facts", "format"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpoint(f"checkpoint {str(path)!r} is damaged: its {_FACTS} cannot be read") from error
    if version != _FORMAT:
        raise UserError(f"checkpoint {str(path)!r} has format {version}, this version reads {_FORMAT}; train again")
    tensors = []
    for name in _TENSORS:
        file = path / f"{name}.safetensors"
        if not file.is_file() or file_sha256(file) != sums.get(name):
            raise DamagedCheckpoint(f"checkpoint {str(path)!r} is damaged: {file.name} is not what was written")
        tensors.append(safetensors.torch.load_file(file))
    state, rows = tensors
    return Checkpoint(step, state, rows, facts)


def newest_checkpoint(folder: Path, *, allow_previous: bool) -> Checkpoint | None:
    """The last checkpoint in ``folder``, None where there is none yet.

    Raises ``DamagedCheckpoint`` where it is not what was written; with ``allow_previous`` the one before is taken.
    """
    found = checkpoints(folder)[::-1]
    for i, path in enumerate(found):
        try:
            return read_checkpoint(path)
        except DamagedCheckpoint as error:
            if not allow_previous:
                raise _with_way_out(error, len(found) - i - 1) from error
    if found:
        raise DamagedCheckpoint(f"all {len(found)} checkpoints in {str(folder)!r} are damaged")
    return None


def _with_way_out(error: DamagedCheckpoint, n_before: int) -> DamagedCheckpoint:
    if n_before:
        return DamagedCheckpoint(f"{error}; pass --allow-previous to go on from the one before it")
    return DamagedCheckpoint(f"{error}; there is no other, so train the run again")


def _save(tensors: dict[str, Tensor], file: Path) -> None:
    try:
        safetensors.torch.save_file(tensors, file)
    except SafetensorError as error:
        if "I/O" in str(error):  # a full disk, which the library reports as an error of its own
            raise OSError(str(error)) from error
        raise


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
