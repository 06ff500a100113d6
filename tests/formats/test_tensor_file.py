"""Files that claim more than they hold, run code, or are no tensors, are refused before anything happens."""

import io
import json
import os
import pickle
import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unweave.errors import UserError
from unweave.formats.tensor_file import exactly, names_in, read_tensors, read_torch, single_value

HUGE = 10**12


def refused(path: Path, match: str) -> None:
    """Reading is an error in one line, and memory was not taken for what the file claims."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=match) as error:
        read_tensors(path)
    assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


@pytest.mark.parametrize("name", ["x.safetensors", "x.npz", "x.pt", "x.pth", "x.bin"])
def test_tensors_come_back_as_they_were_written(tmp_path: Path, name: str) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2]), "c": torch.tensor(0.5)}
    path = tmp_path / name
    if path.suffix == ".npz":
        arrays: dict[str, Any] = {key: tensor.numpy() for key, tensor in tensors.items()}
        np.savez_compressed(path, **arrays)
    elif path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    read = read_tensors(path)
    assert read.keys() == tensors.keys() <= names_in(path)
    assert all(torch.equal(read[key], tensor) and read[key].dtype == tensor.dtype for key, tensor in tensors.items())


@pytest.mark.parametrize("dtype", [">f4", "<f8", "float16", "uint16", ">i2"])
def test_arrays_of_numpy_are_read_whatever_their_order(tmp_path: Path, dtype: str) -> None:
    array = np.asfortranarray(np.arange(6).reshape(2, 3).astype(dtype))
    np.savez(tmp_path / "x.npz", a=array)
    assert read_tensors(tmp_path / "x.npz")["a"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_names_of_what_is_no_file_of_tensors_are_none(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"nothing")
    assert names_in(tmp_path / "x.pt") == names_in(tmp_path / "none.npz") == names_in(tmp_path) == set()


class Runs:
    """Unpickled, it calls a function of the operating system."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("value", "called"),
    [
        (Runs(os.system, "touch ran"), "posix.system"),
        (Runs(eval, "1"), "eval"),
        (Runs(open, "ran", "w"), "open"),
        (Runs(os.mkdir, "ran"), "posix.mkdir"),
    ],
)
def test_a_pickle_that_would_run_code_is_refused_by_the_name_of_what_it_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Runs, called: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": value}, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", rf"would run code to be read, so it is refused: its pickle calls \S*{called}")
    for protocol in (2, 4):
        (tmp_path / "y.pt").write_bytes(pickle.dumps({"a": value}, protocol=protocol))
        refused(tmp_path / "y.pt", rf"its pickle calls \S*{called}")
    assert not (tmp_path / "ran").exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 3), tmp_path / "x.pt")
    refused(tmp_path / "x.pt", r"its pickle calls torch\.nn\.modules\.linear\.Linear")


def test_files_of_an_old_torch_and_no_torch_are_named_so(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    refused(tmp_path / "x.pt", "from before 2020 has to be saved again")
    (tmp_path / "x.pt").write_bytes(b"")
    refused(tmp_path / "x.pt", "no file of torch.save, or damaged")
    refused(tmp_path / "y.pt", "there is no file")


@pytest.mark.parametrize(
    "content", [[torch.ones(2)], torch.ones(2), {1: torch.ones(2)}, {"a": "text"}, {"a": {"b": 1}}]
)
def test_what_is_no_table_of_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", "no tensors by name|is no tensor")


@pytest.mark.parametrize(
    "tensor", [torch.eye(3).to_sparse(), torch.ones(3, dtype=torch.complex64), torch.empty(3, device="meta")]
)
def test_tensors_in_other_layouts_are_refused(tmp_path: Path, tensor: torch.Tensor) -> None:
    torch.save({"a": tensor}, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", "'a' in .*layout that no dictionary has|damaged")


def test_a_tensor_that_repeats_itself_beyond_its_file_is_refused(tmp_path: Path) -> None:
    torch.save({"a": [{"b": torch.ones(1).expand(1_000_000, 1_000_000)}]}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"claims a tensor of shape \[1000000, 1000000\]"):
        read_torch(tmp_path / "x.pt")


def test_plain_values_beside_tensors_are_read(tmp_path: Path) -> None:
    torch.save({"k": 5, "name": "TopK", "a": torch.ones(2)}, tmp_path / "x.pt")
    assert read_torch(tmp_path / "x.pt")["name"] == "TopK"


def _rewritten(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    """The members of an archive again, each after a change."""
    with zipfile.ZipFile(path) as archive:
        members = [(member.filename, archive.read(member)) for member in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members:
            archive.writestr(name, change(name, data))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"K\x06tq", b"J\xff\xff\xff\x7ftq"),  # the storage
        (b"K\x02K\x03\x86", b"J\xff\xff\xff\x7fK\x03\x86"),  # the shape
        (b"K\x03K\x01\x86", b"J\xff\xff\xff\x7fK\x01\x86"),  # the strides
    ],
)
def test_a_torch_file_that_claims_more_than_it_holds_is_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": torch.arange(6.0).reshape(2, 3)}, path)
    _rewritten(path, lambda name, data: data.replace(old, new) if name.endswith("data.pkl") else data)
    refused(path, "damaged")


def test_a_packed_torch_file_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10**7)
    refused(tmp_path / "x.pt", "claims members that are packed")


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [HUGE, HUGE], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, HUGE]},
        {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [-2, -3], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [2, 3], "data_offsets": [4, 28]},
        {"dtype": "F99", "shape": [2, 3], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": "ab", "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [2, 3]},
        [],
        None,
    ],
)
def test_a_safetensors_header_has_to_fit_its_file(tmp_path: Path, entry: object) -> None:
    header = json.dumps({"a": entry}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 24)
    refused(tmp_path / "x.safetensors", "damaged")


@pytest.mark.parametrize("start", [b"", b"\1\2\3", struct.pack("<Q", HUGE), struct.pack("<Q", 2) + b"[]", b"\xff" * 99])
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(start)
    refused(tmp_path / "x.safetensors", "damaged")


def _npy(shape: tuple[int, ...], descr: str = "<f4", data: bytes = b"\0" * 24) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue() + data


@pytest.mark.parametrize(
    ("member", "match"),
    [
        (_npy((HUGE, HUGE)), "claims 'a' of shape"),
        (_npy((2, 4)), "claims 'a' of shape"),
        (_npy((2, 3), "|O"), "expected numbers"),
        (_npy((2, 3), "<c8", b"\0" * 48), "expected numbers"),
        (_npy((6,), "|S4"), "expected numbers"),
        (b"nothing", "damaged"),
        (b"\x93NUMPY\x01\x00\xff\xff", "damaged"),
    ],
)
def test_an_array_has_to_be_numbers_and_as_long_as_it_claims(tmp_path: Path, member: bytes, match: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", member)
    refused(tmp_path / "x.npz", match)


def test_an_archive_that_unpacks_into_very_much_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros((3000, 3000), dtype=np.float32))
    assert (tmp_path / "x.npz").stat().st_size < 100_000
    refused(tmp_path / "x.npz", "claims 'a.npy' of 36000128 bytes")


def test_a_member_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", _npy((6,)))
        archive.writestr("a.npy", _npy((6,)))
    refused(tmp_path / "x.npz", "has a member twice")


def test_tensors_are_asked_for_by_name_and_axes(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(2), "b": torch.ones(2, 2)}
    exactly(tensors, {"a": 1}, tmp_path, b=2, c=1)
    for axes, match in [
        ({"a": 1}, "has 'b' besides"),
        ({"a": 1, "b": 2, "c": 1}, "lacks 'c'"),
        ({"a": 1, "b": 1}, "expected 1 axes, none of them empty"),
    ]:
        with pytest.raises(UserError, match=match):
            exactly(tensors, axes, tmp_path)
    assert single_value(torch.tensor([2.5]), "a", tmp_path) == 2.5
    with pytest.raises(UserError, match="expected one number"):
        single_value(torch.ones(2), "a", tmp_path)
    with pytest.raises(UserError, match="expected a finite number"):
        single_value(torch.tensor(torch.nan), "a", tmp_path)
