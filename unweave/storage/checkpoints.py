"""Checkpoints of a run in training: folders from which it goes on with the same bits.

A checkpoint is a folder ``step-00000123`` with safetensors files, in ``state`` those of coders and optimizers and in
``rows`` the shuffle buffer of each process, and ``checkpoint.json``, which holds the checksums of all of them. It is
written under a temporary name and renamed when all of it is on disk, so a folder of that name is whole, or was altered
later. Several processes write one together, and another number of processes can read it.
"""

import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from unweave.errors import UserError
from unweave.formats.files import file_sha256
from unweave.storage.parts import load_parts, save_parts
from unweave.training.ranks import Ranks

_FORMAT = 2
_FACTS = "checkpoint.json"
_STATE, _ROWS = "state", "rows"


class Checkpoint(NamedTuple):
    """What a run needs to go on after a step."""

    step: int
    """Steps done."""
    state: Mapping[str, Tensor]
    """Coders, optimizers, counters, generators; of what is in parts, this process' part."""
    rows: Mapping[str, Tensor]
    """This process' shuffle buffer; empty where another number of processes wrote the checkpoint."""
    facts: dict[str, Any]
    """What is no tensor, as JSON."""
    per_latent: Collection[str] = ()
    """Names of the tensors in ``state`` of which several processes may each have a part of the latents."""


class DamagedCheckpoint(UserError):
    """A checkpoint is not what was written."""


def write_checkpoint(folder: Path, checkpoint: Checkpoint, ranks: Ranks | None = None) -> Path:
    """Write into ``folder``; a checkpoint of the same step is replaced. Raises ``OSError`` where the disk is full.

    With ``ranks`` all processes take part.
    """
    path = folder / _name(checkpoint.step)
    partial = folder / f".{path.name}.partial"
    is_first = ranks is None or ranks.rank == 0
    if is_first:
        shutil.rmtree(partial, ignore_errors=True)
        for name in (_STATE, _ROWS):
            (partial / name).mkdir(parents=True)
    try:
        sums = _write_tensors(partial, checkpoint, ranks)
        if is_first:
            facts = {"format": _FORMAT, "step": checkpoint.step, "sha256": sums, "facts": checkpoint.facts}
            facts["per_latent"] = sorted(checkpoint.per_latent)
            (partial / _FACTS).write_text(json.dumps(facts, indent=1))
            _to_disk(partial / _FACTS)
            shutil.rmtree(path, ignore_errors=True)
            partial.replace(path)
            _to_disk(folder)
    except BaseException:
        if is_first:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def read_checkpoint(path: Path, ranks: Ranks | None = None) -> Checkpoint:
    """A checkpoint, its tensors on the CPU; raises ``DamagedCheckpoint`` where it is not what was written.

    With ``ranks`` all processes read it together, each its part of what is in parts.
    """
    try:
        values = json.loads((path / _FACTS).read_text())
        version, step, sums, facts = (values[key] for key in ("format", "step", "sha256", "facts"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpoint(f"checkpoint {str(path)!r} is damaged: its {_FACTS} cannot be read") from error
    if version != _FORMAT:
        raise UserError(f"checkpoint {str(path)!r} has format {version}, this version reads {_FORMAT}; train again")
    per_latent = frozenset(values["per_latent"])
    own, count = (0, 1) if ranks is None else (ranks.rank, ranks.count)
    wrong = [name for name in sorted(sums)[own::count] if _sum_of(path / name) != sums[name]]
    if ranks is not None:
        wrong = ranks.all_of(wrong)
    if wrong:
        raise DamagedCheckpoint(f"checkpoint {str(path)!r} is damaged: {wrong[0]} is not what was written")
    states = [name for name in sums if name.startswith(_STATE)]
    if ranks is None and len(states) == 1:
        state = safetensors.torch.load_file(path / states[0])
    else:
        state = load_parts(path / _STATE, per_latent, ranks)
    buffers = sorted(name for name in sums if name.startswith(_ROWS))
    rows = safetensors.torch.load_file(path / buffers[own]) if len(buffers) == count else {}
    return Checkpoint(step, state, rows, facts, per_latent)


def newest_checkpoint(folder: Path, *, allow_previous: bool, ranks: Ranks | None = None) -> Checkpoint | None:
    """The last checkpoint in ``folder``, None where there is none yet, read as by ``read_checkpoint``.

    Raises ``DamagedCheckpoint`` where it is not what was written; with ``allow_previous`` the one before is taken.
    """
    found = checkpoints(folder)[::-1]
    for i, path in enumerate(found):
        try:
            return read_checkpoint(path, ranks)
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


def _write_tensors(partial: Path, checkpoint: Checkpoint, ranks: Ranks | None) -> dict[str, str]:
    """Write all safetensors files; returns the checksum of each."""
    own, count = (0, 1) if ranks is None else (ranks.rank, ranks.count)
    if ranks is None:
        _save(checkpoint.state, partial / _STATE / "state.safetensors")
    else:
        ranks.wait()
        save_parts(partial / _STATE, checkpoint.state, checkpoint.per_latent, ranks)
    error = None
    try:
        _save(checkpoint.rows, partial / _ROWS / f"{own:05d}.safetensors")
    except OSError as failure:
        error = failure
    if ranks is not None and ranks.agree(error is not None) and error is None:
        error = OSError("another process could not write its part")
    if error is not None:
        raise error
    files = sorted(partial.glob("*/*.safetensors"))
    sums = {}
    for file in files[own::count]:
        _to_disk(file)
        sums[str(file.relative_to(partial))] = file_sha256(file)
    return sums if ranks is None else dict(ranks.all_of(list(sums.items())))


def _save(tensors: Mapping[str, Tensor], file: Path) -> None:
    try:
        safetensors.torch.save_file({key: x.detach().contiguous().cpu() for key, x in tensors.items()}, file)
    except SafetensorError as error:
        if "I/O" in str(error):  # a full disk, which the library reports as an error of its own
            raise OSError(str(error)) from error
        raise


def _sum_of(file: Path) -> str:
    return file_sha256(file) if file.is_file() else "there is no such file"


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
