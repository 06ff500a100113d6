"""Atomic writes: a reader never sees half a file."""

from pathlib import Path

import pytest

from unweave.formats.files import sha256, write_atomically


def test_a_written_file_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_atomically(path, "old")
    write_atomically(path, "nëw")
    assert path.read_bytes() == "nëw".encode()
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_atomically(path, "old")
    with pytest.raises(TypeError):
        write_atomically(path, 3)  # type: ignore[arg-type]
    with pytest.raises(IsADirectoryError):
        (tmp_path / "folder").mkdir()
        write_atomically(tmp_path / "folder", "new")
    assert path.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file.txt", "folder"]


def test_the_checksum_is_that_of_the_standard() -> None:
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
