"""The sums behind a run's figures, by which two runs can be compared on the same blocks of documents."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unweave.errors import UserError
from unweave.formats.files import write_atomically

MEASURED = "measured.npz"


def write_sums(folder: Path, sums: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write the sums of every metric, by the metric's name and the sum's."""
    arrays = {f"{metric}.{name}": tensor.numpy() for metric, named in sums.items() for name, tensor in named.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    write_atomically(folder / MEASURED, buffer.getvalue())


def read_sums(folder: Path) -> dict[str, dict[str, Tensor]]:
    """What ``write_sums`` wrote; raises ``UserError`` where it is missing or damaged."""
    path = folder / MEASURED
    advice = "`unweave evaluate` on the run measures it anew"
    if not path.is_file():
        raise UserError(f"{str(folder)!r} has no {MEASURED}; {advice}")
    sums: dict[str, dict[str, Tensor]] = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for key in arrays.files:
                metric, _, name = key.partition(".")
                sums.setdefault(metric, {})[name] = torch.from_numpy(arrays[key])
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{str(path)!r} is damaged; {advice}") from error
    return sums
