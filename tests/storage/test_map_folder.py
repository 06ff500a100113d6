"""What is kept of a map is read again for the same coder only."""

from pathlib import Path

import numpy as np
import pytest

from unweave.storage.map_folder import MapFolder


@pytest.fixture
def places() -> np.ndarray:
    return np.random.default_rng(7).standard_normal((63, 2)).astype(np.float32)


def test_what_was_written_is_read(tmp_path: Path, places: np.ndarray) -> None:
    kept = MapFolder(tmp_path, "a" * 64, 63)
    assert kept.read("umap-0") is None
    kept.write("umap-0", places)
    kept.write("clusters-7-0", np.arange(63))
    found = MapFolder(tmp_path, "a" * 64, 63).read("umap-0")
    assert found is not None
    np.testing.assert_array_equal(found, places)


def test_another_coder_begins_anew(tmp_path: Path, places: np.ndarray) -> None:
    MapFolder(tmp_path, "a" * 64, 63).write("umap-0", places)
    other = MapFolder(tmp_path, "b" * 64, 63)
    assert other.read("umap-0") is None
    other.write("clusters-7-0", np.arange(63))
    assert other.read("umap-0") is None and not (tmp_path / "map" / "umap-0.npy").exists()


@pytest.mark.parametrize("damage", [b"", b"no array", b"\x93NUMPY"])
def test_a_damaged_file_counts_as_none(tmp_path: Path, places: np.ndarray, damage: bytes) -> None:
    kept = MapFolder(tmp_path, "a" * 64, 63)
    kept.write("umap-0", places)
    (tmp_path / "map" / "umap-0.npy").write_bytes(damage)
    assert kept.read("umap-0") is None


def test_an_array_of_another_length_or_without_places_counts_as_none(tmp_path: Path, places: np.ndarray) -> None:
    kept = MapFolder(tmp_path, "a" * 64, 63)
    kept.write("umap-0", places[:7])
    assert kept.read("umap-0") is None
    places[7] = np.nan
    kept.write("umap-0", places)
    assert kept.read("umap-0") is None
