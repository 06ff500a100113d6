"""Tensors out of other people's files, with nothing in them executed: safetensors, NumPy's npz, and torch's own.

What a file claims about itself is checked against how long it is before memory is taken for it. A torch file is the
zip archive that ``torch.save`` has written since 2020; its pickle is read with ``weights_only``.
"""

import io
import json
import math
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from unweave.errors import UserError

_MOST_TIMES_SMALLER = 64
"""Weights hardly compress; a member of an archive that claims to grow by more than this is no dictionary."""
_LARGEST_PICKLE = 64 * 2**20
"""Bytes of the pickle inside a torch file, which names tensors but does not hold them."""
_HARMLESS = re.compile(r"torch(\._utils|\.storage|\.serialization)?\.\w+|torch\.nn\.\w+\.\w+|collections\.OrderedDict")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors, npz or torch file, on the CPU and in the dtypes they have there.

    Raises ``UserError`` where the file is missing, damaged, holds anything but named tensors, or would run code.
    """
    return named_tensors(read_torch(path) if path.suffix in (".pt", ".pth", ".bin") else _read_plain(path), path)


def named_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors that a file's content, or a part of it, holds; raises ``UserError`` where it is anything else.

    Floats of eight bits become float32.
    """
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{str(path)!r} holds no tensors by name; give the state dict of a dictionary")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{name!r} in {str(path)!r} is no tensor, it is {type(value).__name__}")
    return {name: _plain(tensor.detach(), name, path) for name, tensor in content.items()}


def read_torch(path: Path) -> Any:
    """What ``torch.save`` wrote, where that is tensors and plain values; a pickle that would run code is refused."""
    _check_there(path)
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(path) or _damaged(path, error) from error
    except Exception as error:  # a parser of damaged bytes raises anything
        raise _damaged(path, error) from error
    _check_claims(content, path)
    return content


def names_in(path: Path) -> set[str]:
    """The names of tensors in a file, read without its tensors; empty where it cannot be read. For ``recognises``.

    Of a torch file these are all texts in its pickle.
    """
    try:
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                return {name.removesuffix(".npy") for name in archive.namelist()}
        if path.suffix == ".safetensors":
            return set(_safetensors_header(path))
        with zipfile.ZipFile(path) as archive:
            pickled = next(member for member in archive.infolist() if member.filename.endswith("data.pkl"))
            if pickled.file_size > _LARGEST_PICKLE:
                return set()
            operations = pickletools.genops(archive.read(pickled))
            return {argument for _, argument, _ in operations if isinstance(argument, str)}
    except Exception:  # a parser of damaged bytes raises anything
        return set()


def exactly(tensors: Mapping[str, Tensor], axes: Mapping[str, int], path: Path, **optional: int) -> None:
    """Raise ``UserError`` unless the tensors are the named ones, each with that number of axes, and no others."""
    known = {**axes, **optional}
    if missing := sorted(axes.keys() - tensors.keys()):
        raise UserError(f"{str(path)!r} lacks {missing[0]!r}; it is not a whole dictionary of this format")
    if extra := sorted(tensors.keys() - known.keys()):
        raise UserError(f"{str(path)!r} has {extra[0]!r} besides what this format knows; it cannot be read exactly")
    for name, tensor in tensors.items():
        if tensor.ndim != known[name] or not tensor.numel():
            found = f"{known[name]} axes, none of them empty"
            raise UserError(f"{name!r} in {str(path)!r} has shape {list(tensor.shape)}, expected {found}")


def shaped(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Raise ``UserError`` unless the named tensors, those that are there, have the shapes that follow from others."""
    for name, shape in shapes.items():
        if name in tensors and tensors[name].shape != shape:
            found = list(tensors[name].shape)
            raise UserError(f"{name!r} in {str(path)!r} has shape {found}, expected {list(shape)} by the other tensors")


def single_value(tensor: Tensor, name: str, path: Path) -> float:
    """The number in a tensor of one entry."""
    if tensor.numel() != 1:
        raise UserError(f"{name!r} in {str(path)!r} has shape {list(tensor.shape)}, expected one number")
    value = float(tensor)
    if not math.isfinite(value):
        raise UserError(f"{name!r} in {str(path)!r} is {value}, expected a finite number; fetch or copy it again")
    return value


def _read_plain(path: Path) -> dict[str, Tensor]:
    _check_there(path)
    try:
        return _read_npz(path) if path.suffix == ".npz" else _read_safetensors(path)
    except UserError:
        raise
    except Exception as error:  # a parser of damaged bytes raises anything
        raise _damaged(path, error) from error


def _safetensors_header(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise _claims_more(path, f"a header of {length} bytes", size)
        return json.loads(file.read(length))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    size = path.stat().st_size
    for name, entry in _safetensors_header(path).items():
        if name != "__metadata__" and max([*entry["data_offsets"], math.prod(entry["shape"]) // 2]) > size:
            raise _claims_more(path, f"{name!r} of shape {entry['shape']}", size)
    return load_file(path)


def _read_npz(path: Path) -> dict[str, Tensor]:
    size, tensors = path.stat().st_size, {}
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len({member.filename for member in members}) != len(members):
            raise UserError(f"{str(path)!r} has a member twice; fetch or copy it again")
        for member in members:
            if member.file_size > _MOST_TIMES_SMALLER * min(size, member.compress_size + 1024):
                raise _claims_more(path, f"{member.filename!r} of {member.file_size} bytes", size)
            name = member.filename.removesuffix(".npy")
            tensors[name] = _read_npy(archive.read(member), name, path)
    return tensors


def _read_npy(data: bytes, name: str, path: Path) -> Tensor:
    """One array, whose header must claim exactly as many bytes as follow it."""
    file = io.BytesIO(data)
    major, _ = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read_header(file)
    if dtype.kind not in "fiu" or min(shape, default=0) < 0:
        raise UserError(f"{name!r} in {str(path)!r} is an array of {dtype} and shape {shape}, expected numbers")
    if math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise _claims_more(path, f"{name!r} of shape {shape}", len(data))
    flat = np.frombuffer(data, dtype, offset=file.tell())
    array = flat.reshape(shape, order="F" if is_fortran else "C")
    return torch.from_numpy(np.array(array, dtype=dtype.newbyteorder("="), order="C"))


def _check_archive(path: Path) -> None:
    """Refuse what is no archive of ``torch.save``, and one whose members claim more than the file holds."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:
        if refusal := _refusal(path):
            raise refusal from error
        hint = "fetch or copy it again; a file from before 2020 has to be saved again by a newer torch"
        raise UserError(f"{str(path)!r} is no file of torch.save, or damaged; {hint}") from error
    size = path.stat().st_size
    if sum(member.file_size for member in members) > size or any(member.compress_type for member in members):
        raise _claims_more(path, "members that are packed", size)
    if any(m.file_size > _LARGEST_PICKLE for m in members if m.filename.endswith("data.pkl")):
        raise UserError(f"{str(path)!r} has a pickle of more than {_LARGEST_PICKLE} bytes, which is no dictionary")


def _check_claims(content: Any, path: Path) -> None:
    """Refuse tensors that claim more than the file holds, at any depth."""
    size, waiting, seen = path.stat().st_size, [content], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            if value.layout == torch.strided and value.numel() * value.element_size() > size:
                raise _claims_more(path, f"a tensor of shape {list(value.shape)}", size)
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)


def _plain(tensor: Tensor, name: str, path: Path) -> Tensor:
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not plain or tensor.is_complex() or tensor.dtype == torch.bool or type(tensor) is not Tensor:
        raise UserError(f"{name!r} in {str(path)!r} is {tensor.dtype} in a layout that no dictionary has")
    # hardly any operation knows floats of eight bits
    return tensor.float() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor


def _refusal(path: Path) -> UserError | None:
    """What to say where the pickle of a torch file, or the whole file as a pickle, names what is no tensor's."""
    foreign = [name for name in _named_in_pickle(path) if not _HARMLESS.fullmatch(name)]
    if not foreign:
        return None
    return UserError(f"{str(path)!r} would run code to be read, so it is refused: its pickle calls {foreign[0]}")


def _named_in_pickle(path: Path) -> list[str]:
    """The functions and classes that a pickle imports, as far as it can be taken apart; nothing is run."""
    names, texts = [], []
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                data = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
        else:
            with path.open("rb") as file:
                data = file.read(_LARGEST_PICKLE)
        for operation, argument, _ in pickletools.genops(data):
            if operation.name in ("GLOBAL", "INST"):
                names.append(str(argument).replace(" ", "."))
            elif operation.name == "STACK_GLOBAL" and len(texts) > 1:
                names.append(".".join(texts[-2:]))
            elif isinstance(argument, str):
                texts.append(argument)
    except Exception:  # a parser of damaged bytes raises anything
        return names
    return names


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"there is no file {str(path)!r}; give the folder of a whole dictionary")


def _claims_more(path: Path, what: str, size: int) -> UserError:
    return UserError(f"{str(path)!r} is damaged: it claims {what} in {size} bytes; fetch or copy it again")


def _damaged(path: Path, error: Exception) -> UserError:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
    return UserError(f"{str(path)!r} is damaged ({reason[:200]}); fetch or copy it again")
