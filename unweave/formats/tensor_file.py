"""Tensors out of other people's files, with nothing in them executed: safetensors, NumPy's npz, and torch's own."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unweave.errors import UserError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors, npz or torch file, on the CPU and in the dtypes they have there.

    Raises ``UserError`` where the file is missing, damaged, holds anything but named tensors, or would run code.
    """
    content = read_torch(path) if path.suffix in (".pt", ".pth", ".bin") else _read_plain(path)
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{str(path)!r} holds no tensors by name; give the state dict of a dictionary")
    if wrong := [name for name, value in content.items() if not isinstance(value, Tensor)]:
        raise UserError(f"{wrong[0]!r} in {str(path)!r} is no tensor, it is {type(content[wrong[0]]).__name__}")
    return content


def read_torch(path: Path) -> Any:
    """What ``torch.save`` wrote, where that is tensors and plain values; a pickle that would run code is refused."""
    _check_there(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{str(path)!r} would run code to be read, so it is refused: {_reason(error)}") from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError, TypeError, IndexError) as error:
        raise UserError(f"{str(path)!r} is damaged ({_reason(error)}); fetch or copy it again") from error


def _read_plain(path: Path) -> dict[str, Tensor]:
    _check_there(path)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        return load_file(path)
    except (SafetensorError, zipfile.BadZipFile, ValueError, TypeError, EOFError, OSError, KeyError) as error:
        raise UserError(f"{str(path)!r} is damaged ({_reason(error)}); fetch or copy it again") from error


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"there is no file {str(path)!r}; give the folder of a whole dictionary")


def _reason(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
