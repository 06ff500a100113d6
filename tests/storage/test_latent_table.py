"""The table of latents: sorting, filters and search against plain lists, and what cannot be read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unweave.errors import UserError
from unweave.storage.latent_table import LatentTable, TableQuery, write_table

VOCABULARY = ["<s>", " def", " class", "(", "naïve", "return", "'; DROP TABLE latents; --", "\x1f"]


def _sheet(latent: int, values: np.ndarray) -> dict[str, Any]:
    density, largest, told = values[latent].tolist()
    return {
        "n_fires": int(density * 1000),
        "density": density,
        "max": largest,
        "mean": largest / 2,
        "top": [],
        "peaks": [1, 3] if latent % 5 == 0 else [6, 7],
        "telling": {"token": [told, 1.0, []]} if latent % 3 else {},
        "rule": ["token", [[1], [2, 3]], told, 0.5, 0.5] if latent % 2 else None,
        "similar": [[latent + 1, 0.5]],
        "partners": [],
        "promoted": [[5 if latent < 20 else 4, 1.0]],
        "note": f"sheet {latent}",
    }


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    return np.random.default_rng(7).random((63, 3)).round(6)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, values: np.ndarray) -> LatentTable:
    path = tmp_path_factory.mktemp("table") / "latents.sqlite"
    write_table(path, (_sheet(latent, values) for latent in range(63)), VOCABULARY, ["a", "b"])
    return LatentTable(path)


def test_pages_are_sorted_and_follow_each_other(table: LatentTable, values: np.ndarray) -> None:
    order = np.argsort(-values[:, 1]).tolist()
    pages = [table.rows(TableQuery(sort="max", descending=True, offset=offset, limit=25)) for offset in (0, 25, 50)]
    assert [row.latent for rows, _ in pages for row in rows] == order
    assert {count for _, count in pages} == {63}


def test_filters_keep_what_lies_within_both_bounds(table: LatentTable, values: np.ndarray) -> None:
    query = TableQuery(at_least={"density": 0.25, "max": 0.1}, at_most={"density": 0.75})
    rows, count = table.rows(query)
    expected = np.flatnonzero((values[:, 0] >= 0.25) & (values[:, 0] <= 0.75) & (values[:, 1] >= 0.1)).tolist()
    assert [row.latent for row in rows] == expected and count == len(expected)


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("def", [n for n in range(63) if n % 5 == 0 or n % 2]),
        ("DE", [n for n in range(63) if n % 5 == 0 or n % 2]),
        ("retur", list(range(20))),
        ("naive", list(range(20, 63))),
        ("drop table", [n for n in range(63) if n % 5]),
        ("class retu", [n for n in range(20) if n % 2]),
        ("(", [n for n in range(63) if n % 5 == 0 or n % 2]),
        ('"', []),
        ("absent", []),
        ("", list(range(63))),
    ],
)
def test_search_finds_what_tokens_begin_with_and_signs_they_hold(
    table: LatentTable, search: str, expected: list[int]
) -> None:
    rows, count = table.rows(TableQuery(search=search, limit=1000))
    assert [row.latent for row in rows] == expected and count == len(expected)


def test_rows_show_their_tokens(table: LatentTable) -> None:
    rows, _ = table.rows(TableQuery(limit=2))
    assert rows[0].peaks == [" def", "("] and rows[0].promoted == ["return"] and rows[0].rule == []
    assert rows[1].peaks == ["'; DROP TABLE latents; --", " "] and rows[1].rule == [" def", " class("]


def test_a_sheet_comes_back_as_it_was(table: LatentTable, values: np.ndarray) -> None:
    assert table.sheet(7) == _sheet(7, values)
    assert [sheet["note"] for sheet in table.sheets()] == [f"sheet {latent}" for latent in range(63)]
    assert table.vocabulary() == VOCABULARY and table.documents() == ["a", "b"]
    assert table.column("density") == values[:, 0].tolist()


def test_what_is_not_there_is_said(table: LatentTable, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no latent 63; this coder has latents 0 to 62"):
        table.sheet(63)
    with pytest.raises(UserError, match=r"unknown column 'dens'.*did you mean 'density'"):
        TableQuery(sort="dens")
    with pytest.raises(UserError, match="unknown column 'latent; DROP'"):
        TableQuery(at_least={"latent; DROP": 1.0})
    with pytest.raises(UserError, match="1 to 1000 rows, got offset=0 limit=0"):
        TableQuery(limit=0)
    (tmp_path / "latents.sqlite").write_bytes(b"no table at all" * 99)
    with pytest.raises(UserError, match="is damaged"):
        LatentTable(tmp_path / "latents.sqlite").sheet(0)
