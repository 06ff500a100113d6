"""The latent index: what is written comes back, and a damaged file is named."""

from pathlib import Path

import pytest

from unweave.analysis.latent_records import Example, LatentRecord, TokenWeight
from unweave.errors import UserError
from unweave.storage.latent_index import LatentIndex, write_latents

RECORDS = [
    LatentRecord(
        latent=i,
        density=i / 10,
        n_fires=i,
        max_activation=1.5 * i,
        mean_activation=0.5,
        examples=[Example([1, 2, 0], [0.0, 1.5, 0.25], 1, "book#1")] * i,
        promoted=[TokenWeight(2, 0.5)],
        suppressed=[],
    )
    for i in range(3)
]
VOCABULARY = ["a", "<script>", "\n", "ü�"]


def test_records_and_vocabulary_come_back(tmp_path: Path) -> None:
    write_latents(tmp_path / "l.sqlite", RECORDS[:1], ["x"])
    write_latents(tmp_path / "l.sqlite", RECORDS, VOCABULARY)
    index = LatentIndex(tmp_path / "l.sqlite")
    assert len(index) == 3
    assert list(index) == RECORDS
    assert index[2] == RECORDS[2]
    assert index.vocabulary() == VOCABULARY
    assert [path.name for path in tmp_path.iterdir()] == ["l.sqlite"]


def test_a_latent_that_is_not_there_names_the_range(tmp_path: Path) -> None:
    write_latents(tmp_path / "l.sqlite", RECORDS, VOCABULARY)
    with pytest.raises(UserError, match="no latent 3; this coder has latents 0 to 2"):
        LatentIndex(tmp_path / "l.sqlite")[3]


def test_a_missing_or_damaged_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no latent index"):
        LatentIndex(tmp_path / "l.sqlite")
    (tmp_path / "l.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(UserError, match="is damaged"):
        LatentIndex(tmp_path / "l.sqlite")[0]
