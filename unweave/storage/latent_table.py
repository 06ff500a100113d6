"""What an index says of every latent, in one SQLite file: a table that sorts, filters and searches, and its sheets."""

import json
import operator
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from unweave.errors import UserError
from unweave.registry import lookup

COLUMNS = {
    "latent": "Number of the latent.",
    "n_fires": "Tokens on which it fires.",
    "density": "Share of tokens on which it fires.",
    "max": "Largest activation.",
    "mean": "Mean activation where it fires.",
    "told": "Share of the uncertainty about its firing that the token takes away.",
    "f1": "F1 of the rule of tokens that names its fires, 0 without one.",
    "similar": "Largest cosine of what it writes with what another latent writes.",
    "jaccard": "Largest Jaccard index of its tokens with those of another latent.",
}
"""Columns of numbers, by which the table sorts and filters."""
_SCHEMA = """
CREATE TABLE latents (
    latent INTEGER PRIMARY KEY, n_fires INTEGER NOT NULL, density REAL NOT NULL, max REAL NOT NULL, mean REAL NOT NULL,
    told REAL NOT NULL, f1 REAL NOT NULL, similar REAL NOT NULL, jaccard REAL NOT NULL,
    peaks TEXT NOT NULL, promoted TEXT NOT NULL, rule TEXT NOT NULL, sheet TEXT NOT NULL
);
CREATE VIRTUAL TABLE words USING fts5(peaks, promoted, rule, content='latents', content_rowid='latent');
CREATE TABLE vocabulary (token_id INTEGER PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE documents (document INTEGER PRIMARY KEY, name TEXT NOT NULL);
"""
_SHOWN = 5
"""Tokens that a row of the table shows of each kind."""
BETWEEN = "\x1f"
"""Between tokens of a row, as no text has it."""
MOST_ROWS = 1000
_IN = "(SELECT value FROM json_each(?))"
"""Numbers, given as JSON: a statement takes only so many parameters."""


@dataclass(frozen=True, kw_only=True)
class TableQuery:
    """Which rows of the table, and in which order."""

    sort: str = "latent"
    """One of ``COLUMNS``."""
    descending: bool = False
    offset: int = 0
    limit: int = 100
    search: str = ""
    """Words that a row's tokens begin with, all of them; or a text without letters that a token holds."""
    also: Sequence[int] = ()
    """Latents that fit the search whatever their tokens are, such as those whose label does."""
    among: Sequence[int] | None = None
    """The only latents that are asked for."""
    at_least: Mapping[str, float] = field(default_factory=dict)
    """Smallest value of some columns."""
    at_most: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (self.sort, *self.at_least, *self.at_most):
            lookup(name, COLUMNS, "column")
        if self.offset < 0 or not 1 <= self.limit <= MOST_ROWS:
            raise UserError(
                f"a page of the table has 1 to {MOST_ROWS} rows, got offset={self.offset} limit={self.limit}"
            )


@dataclass(frozen=True)
class TableRow:
    """One latent in the table."""

    latent: int
    n_fires: int
    density: float
    max: float
    mean: float
    told: float
    f1: float
    similar: float
    jaccard: float
    peaks: list[str]
    """Tokens on which its strongest examples peak, the most frequent first."""
    promoted: list[str]
    rule: list[str]
    """Tokens or n-grams of its rule."""


def write_table(
    path: Path, sheets: Iterable[Mapping[str, Any]], vocabulary: Sequence[str], documents: Sequence[str]
) -> None:
    """Write the sheets of all latents, in order and one by one."""
    path.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(path)) as database, database:
            database.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + _SCHEMA)
            rows = (_row(latent, sheet, vocabulary) for latent, sheet in enumerate(sheets))
            database.executemany(f"INSERT INTO latents VALUES ({', '.join('?' * 13)})", rows)
            database.executemany("INSERT INTO vocabulary VALUES (?, ?)", enumerate(vocabulary))
            database.executemany("INSERT INTO documents VALUES (?, ?)", enumerate(documents))
            database.execute("INSERT INTO words (words) VALUES ('rebuild')")
    except sqlite3.OperationalError as error:  # a full disk, which SQLite reports as an error of its own
        path.unlink(missing_ok=True)
        raise OSError(f"cannot write {str(path)!r}: {error}") from error


class LatentTable:
    """Reads what ``write_table`` wrote; any number of threads may share one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return self._query("SELECT COUNT(*) FROM latents")[0][0]

    def sheet(self, latent: int) -> dict[str, Any]:
        """All that is kept of one latent."""
        rows = self._query("SELECT sheet FROM latents WHERE latent = ?", operator.index(latent))
        if not rows:
            raise UserError(f"there is no latent {latent}; this coder has latents 0 to {len(self) - 1}")
        return json.loads(rows[0][0])

    def sheets(self) -> Iterator[dict[str, Any]]:
        """The sheets of all latents in order."""
        return (json.loads(row[0]) for row in self._query("SELECT sheet FROM latents ORDER BY latent"))

    def rows(self, query: TableQuery) -> tuple[list[TableRow], int]:
        """A page of the table, and how many rows fit the query in all."""
        found = np.flatnonzero(self._fits(query))
        order = np.lexsort((found, self._columns[query.sort][found] * (-1 if query.descending else 1)))
        page = found[order[query.offset : query.offset + query.limit]].tolist()
        sql = f"SELECT {', '.join(TableRow.__dataclass_fields__)} FROM latents WHERE latent IN {_IN}"
        rows = {
            row[0]: TableRow(*row[:-3], *(_split(text) for text in row[-3:])) for row in self._query(sql, _ids(page))
        }
        return [rows[latent] for latent in page], len(found)

    def column(self, name: str) -> list[float]:
        """One column for all latents in order."""
        lookup(name, COLUMNS, "column")
        return self._columns[name].tolist()

    def vocabulary(self) -> list[str]:
        """Text of each token id."""
        return [row[0] for row in self._query("SELECT text FROM vocabulary ORDER BY token_id")]

    def documents(self) -> list[str]:
        """Name of each document of the text."""
        return [row[0] for row in self._query("SELECT name FROM documents ORDER BY document")]

    @cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        """All numbers, which fit into memory and are filtered and sorted there many times as fast as from the file."""
        rows = self._query(f"SELECT {', '.join(COLUMNS)} FROM latents ORDER BY latent")
        columns = np.array(rows, dtype=np.float64).reshape(-1, len(COLUMNS)).T
        return dict(zip(COLUMNS, np.ascontiguousarray(columns), strict=True))

    @cached_property
    def _texts(self) -> list[str]:
        """The tokens of every row."""
        return ["".join(row) for row in self._query("SELECT peaks, promoted, rule FROM latents ORDER BY latent")]

    def _fits(self, query: TableQuery) -> Bool[np.ndarray, " L"]:
        fits = np.ones(len(self._columns["latent"]), dtype=bool)
        for compare, bounds in ((operator.ge, query.at_least), (operator.le, query.at_most)):
            for name, bound in bounds.items():
                fits &= compare(self._columns[name], bound)
        if query.among is not None:
            fits &= _marked(query.among, len(fits))
        if query.search.strip():
            fits &= _marked([*self._search(query.search), *query.also], len(fits))
        return fits

    def _search(self, search: str) -> list[int]:
        words = "".join(c if c.isalnum() else " " for c in search).split()
        if not words:
            sign = search.strip()
            return [latent for latent, text in enumerate(self._texts) if sign in text]
        wanted = " ".join(f'"{word}"*' for word in words)
        return [row[0] for row in self._query("SELECT rowid FROM words WHERE words MATCH ?", wanted)]

    def _query(self, sql: str, *parameters: Any) -> list[tuple]:
        try:
            with closing(sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)) as database:
                return database.execute(sql, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{str(self.path)!r} is damaged ({error}); `unweave index` on the run makes it anew"
            ) from error


def _marked(latents: Sequence[int], n_latents: int) -> Bool[np.ndarray, " L"]:
    """Which latents are among these; numbers of other latents are passed over."""
    marked = np.zeros(n_latents, dtype=bool)
    marked[[latent for latent in latents if 0 <= latent < n_latents]] = True
    return marked


def _ids(latents: Sequence[int]) -> str:
    return json.dumps(list(latents))


def _row(latent: int, sheet: Mapping[str, Any], vocabulary: Sequence[str]) -> tuple:
    rule = sheet["rule"]
    ngrams = [[vocabulary[int(token)] for token in key] for key in rule[1][:_SHOWN]] if rule else []
    telling = sheet["telling"].get("token")
    return (
        latent,
        sheet["n_fires"],
        sheet["density"],
        sheet["max"],
        sheet["mean"],
        telling[0] if telling else 0.0,
        rule[2] if rule else 0.0,
        sheet["similar"][0][1] if sheet["similar"] else 0.0,
        sheet["partners"][0][1] if sheet["partners"] else 0.0,
        _joined([vocabulary[int(token)] for token in sheet["peaks"]]),
        _joined([vocabulary[int(token)] for token, _ in sheet["promoted"][:_SHOWN]]),
        _joined("".join(texts) for texts in ngrams),
        json.dumps(sheet, separators=(",", ":")),
    )


def _joined(texts: Iterable[str]) -> str:
    return BETWEEN.join(text.replace(BETWEEN, " ") for text in texts)


def _split(text: str) -> list[str]:
    return text.split(BETWEEN) if text else []
