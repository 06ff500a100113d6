"""The records of all latents in one SQLite file: random access by latent, nothing read that is not shown."""

import json
import operator
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from unweave.analysis.latent_records import Example, LatentRecord, TokenWeight
from unweave.errors import UserError

_SCHEMA = """
CREATE TABLE latents (
    latent INTEGER PRIMARY KEY,
    density REAL NOT NULL,
    max_activation REAL NOT NULL,
    record TEXT NOT NULL
);
CREATE TABLE vocabulary (token_id INTEGER PRIMARY KEY, text TEXT NOT NULL);
"""


def write_latents(path: Path, records: Sequence[LatentRecord], vocabulary: Sequence[str]) -> None:
    """Write all records and the text of every token; an existing file is replaced once the new one is whole."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(temporary)) as database, database:
            database.executescript(_SCHEMA)
            database.executemany(
                "INSERT INTO latents VALUES (?, ?, ?, ?)",
                ((r.latent, r.density, r.max_activation, json.dumps(r, default=vars)) for r in records),
            )
            database.executemany("INSERT INTO vocabulary VALUES (?, ?)", enumerate(vocabulary))
    except sqlite3.OperationalError as error:  # a full disk, which SQLite reports as an error of its own
        temporary.unlink(missing_ok=True)
        raise OSError(f"cannot write {str(path)!r}: {error}") from error
    temporary.replace(path)


class LatentIndex:
    """Reads what ``write_latents`` wrote."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"there is no latent index {str(path)!r}; `unweave evaluate` on the run makes it")
        self.path = path

    def __len__(self) -> int:
        return self._query("SELECT COUNT(*) FROM latents")[0][0]

    def __getitem__(self, latent: int) -> LatentRecord:
        rows = self._query("SELECT record FROM latents WHERE latent = ?", operator.index(latent))
        if not rows:
            raise UserError(f"there is no latent {latent}; this coder has latents 0 to {len(self) - 1}")
        return _record(rows[0][0])

    def __iter__(self) -> Iterator[LatentRecord]:
        return (_record(row[0]) for row in self._query("SELECT record FROM latents ORDER BY latent"))

    def vocabulary(self) -> list[str]:
        """Text of every token id."""
        return [row[0] for row in self._query("SELECT text FROM vocabulary ORDER BY token_id")]

    def _query(self, sql: str, *parameters: int) -> list[tuple]:
        try:
            with closing(sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)) as database:
                return database.execute(sql, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{str(self.path)!r} is damaged ({error}); `unweave evaluate` on the run makes it anew"
            ) from error


def _record(text: str) -> LatentRecord:
    values = json.loads(text)
    values["examples"] = [Example(**example) for example in values["examples"]]
    for side in ("promoted", "suppressed"):
        values[side] = [TokenWeight(**weight) for weight in values[side]]
    return LatentRecord(**values)
