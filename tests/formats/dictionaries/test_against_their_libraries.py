"""What we read behaves as in the library that wrote it, and what we write behaves there as it does here."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from unweave.coders import SparseCoder
from unweave.formats.dictionaries import formats, read_dictionaries, write_dictionary
from unweave.formats.native import read_coder, write_coder
from unweave.formats.tensor_file import read_torch

from . import golden_cases, ours

CLOSE = {"rtol": 0.0, "atol": 1e-5}


def _assert_agrees(coder: SparseCoder, expected: golden_cases.Expected) -> None:
    x = golden_cases.readable(coder, expected.x_BD)
    codes = coder.encode(x)
    torch.testing.assert_close(codes.dense(), expected.codes_BL, **CLOSE)
    torch.testing.assert_close(coder.reconstruct(codes, x), expected.reconstruction_BD, **CLOSE)


@pytest.mark.parametrize(("format", "case"), golden_cases.cases("theirs"))
def test_what_a_library_wrote_behaves_as_there(format: str, case: str, tmp_path: Path) -> None:
    path = golden_cases.path_of(format, "theirs", case)
    assert [name for name, known in formats().items() if known.recognises(path)] == [format]
    coder = golden_cases.read(format, "theirs", case)
    expected = golden_cases.expected(golden_cases.GOLDEN / format / "theirs" / case)
    _assert_agrees(coder, expected)
    assert not any(parameter.requires_grad for parameter in coder.parameters())
    write_coder(tmp_path, coder)
    again = read_coder(tmp_path)
    assert (again.config, again.wiring, again.origin) == (coder.config, coder.wiring, coder.origin)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in coder.state_dict().items())
    x = golden_cases.readable(coder, expected.x_BD)
    assert torch.equal(again(x), coder(x))


def _content(path: Path) -> dict[str, Tensor] | object:
    if path.suffix == ".json":
        return json.loads(path.read_text())
    return read_torch(path) if path.suffix == ".pt" else load_file(path)


@pytest.mark.parametrize(("format", "case"), golden_cases.cases("ours"))
def test_what_we_write_is_what_the_library_has_read(format: str, case: str, tmp_path: Path) -> None:
    golden = golden_cases.GOLDEN / format / "ours" / case
    coder = ours.coder(format, case)
    _assert_agrees(coder, golden_cases.expected(golden))
    write_dictionary(coder, tmp_path, format)
    files = {path.relative_to(golden) for path in golden.rglob("*") if path.is_file()} - {Path("expected.safetensors")}
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()} == files
    for file in files:
        written, read = _content(tmp_path / file), _content(golden / file)
        if file.suffix == ".json":
            assert written == read
            continue
        assert isinstance(written, dict) and isinstance(read, dict)
        assert written.keys() == read.keys()
        for name, tensor in written.items():
            torch.testing.assert_close(tensor, read[name], rtol=0.0, atol=1e-6)


@pytest.mark.parametrize(("format", "case"), golden_cases.cases("ours"))
def test_what_we_write_comes_back(format: str, case: str, tmp_path: Path) -> None:
    golden = golden_cases.GOLDEN / format / "ours" / case
    coder = ours.coder(format, case)
    write_dictionary(coder, tmp_path, format)
    (again,) = read_dictionaries(tmp_path).values()
    _assert_agrees(again, golden_cases.expected(golden))
    assert again.origin == coder.origin
    assert again.wiring.row_norm == coder.wiring.row_norm
    assert [port.width for port in again.wiring.reads] == [port.width for port in coder.wiring.reads]


def test_every_case_of_ours_was_read_by_its_library() -> None:
    listed = {(format, case) for format, cases in ours.CASES.items() for case in cases}
    assert listed == set(golden_cases.cases("ours"))


def test_the_table_of_what_is_verified_names_both_directions() -> None:
    table = set(golden_cases.verified())
    assert ("saelens", "gated", True, True) in table
    assert ("saelens", "archetypal", False, True) in table
    assert ("sparsify", "abs_topk", True, False) in table
    assert ("dictionary_learning", "matryoshka", True, True) in table


def test_golden_files_stay_small() -> None:
    paths = [path for format in golden_cases.FORMATS for path in (golden_cases.GOLDEN / format).rglob("*")]
    assert sum(path.stat().st_size for path in paths if path.is_file()) < 450_000
