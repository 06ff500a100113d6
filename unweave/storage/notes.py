"""Labels, notes and lists that people keep of a run's latents, in ``notes.sqlite`` of the run's folder.

The file is apart from the index, which can be made anew. Writers wait for each other (WAL mode, one transaction per
change), so several servers may write at once.
"""

import operator
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unweave.errors import UserError

MIGRATIONS = (
    """
    CREATE TABLE labels (latent INTEGER PRIMARY KEY, label TEXT NOT NULL, note TEXT NOT NULL);
    CREATE TABLE changes (
        change INTEGER PRIMARY KEY, latent INTEGER NOT NULL, time REAL NOT NULL,
        field TEXT NOT NULL, old TEXT NOT NULL, new TEXT NOT NULL
    );
    CREATE INDEX changes_by_latent ON changes (latent);
    CREATE TABLE lists (list INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE members (
        list INTEGER NOT NULL REFERENCES lists ON DELETE CASCADE, latent INTEGER NOT NULL, PRIMARY KEY (list, latent)
    ) WITHOUT ROWID;
    """,
)
"""Each takes the file from the version that is its index to the next; only ever added to."""
LONGEST = {"label": 200, "note": 10_000, "list": 100}
"""Characters that each may have."""
_PATIENCE = 20.0
"""Seconds to wait for another writer."""


@dataclass(frozen=True)
class Label:
    """What a person wrote about a latent."""

    label: str = ""
    note: str = ""


@dataclass(frozen=True)
class Change:
    """One change of a label or a note."""

    time: float
    """Seconds since 1970."""
    field: str
    """``label`` or ``note``."""
    old: str
    new: str


@dataclass(frozen=True)
class NamedList:
    """Latents under one name."""

    name: str
    latents: list[int]
    """In the order of their numbers."""


class Notes:
    """Reads and writes the notes of a run; any number of threads and processes may."""

    def __init__(self, path: Path) -> None:
        """``path`` need not exist: it is made by the first change."""
        self.path = path

    def label(self, latent: int) -> Label:
        """What is written about a latent; empty where nothing is."""
        rows = self._read("SELECT label, note FROM labels WHERE latent = ?", operator.index(latent))
        return Label(*rows[0]) if rows else Label()

    def labels(self) -> dict[int, str]:
        """Every label that is not empty."""
        return dict(self._read("SELECT latent, label FROM labels WHERE label != '' ORDER BY latent"))

    def search(self, text: str) -> list[int]:
        """Latents whose label or note holds the text, in any case."""
        wanted = text.casefold()  # SQLite's own lower() knows the letters of English only
        rows = self._read("SELECT latent, label, note FROM labels ORDER BY latent")
        return [latent for latent, *texts in rows if any(wanted in text.casefold() for text in texts)]

    def history(self, latent: int) -> list[Change]:
        """All changes of a latent's label and note, the latest first."""
        sql = "SELECT time, field, old, new FROM changes WHERE latent = ? ORDER BY change DESC"
        return [Change(*row) for row in self._read(sql, operator.index(latent))]

    def write(self, latent: int, *, label: str | None = None, note: str | None = None) -> Label:
        """Change a latent's label or note; what is None stays. Raises ``UserError`` for one that is too long."""
        fresh: dict[str, str | None] = {
            "label": label if label is None else _line(label),
            "note": note if note is None else note.strip(),
        }
        wanted = {field: _checked(text, field) for field, text in fresh.items() if text is not None}
        with self._change() as database:
            row = database.execute("SELECT label, note FROM labels WHERE latent = ?", (latent,)).fetchone()
            old: dict[str, str] = dict(zip(fresh, row or ("", ""), strict=True))
            for field, text in wanted.items():
                if text != old[field]:
                    change = (latent, time.time(), field, old[field], text)
                    database.execute(
                        "INSERT INTO changes (latent, time, field, old, new) VALUES (?, ?, ?, ?, ?)", change
                    )
            new = {**old, **wanted}
            database.execute("REPLACE INTO labels VALUES (?, ?, ?)", (latent, new["label"], new["note"]))
        return Label(**new)

    def lists(self) -> list[NamedList]:
        """All lists by name."""
        found: dict[str, list[int]] = {}
        sql = "SELECT name, latent FROM lists LEFT JOIN members USING (list) ORDER BY name, latent"
        for name, latent in self._read(sql):
            found.setdefault(name, []).extend([] if latent is None else [latent])
        return [NamedList(name, latents) for name, latents in found.items()]

    def named(self, name: str) -> NamedList:
        """One list; raises ``UserError`` where there is none of that name."""
        found = next((one for one in self.lists() if one.name == name), None)
        if found is None:
            raise UserError(f"there is no list {name!r}; a latent's page makes one")
        return found

    def add(self, name: str, *latents: int) -> None:
        """Put latents on a list, which is made where there is none."""
        name = _checked(_line(name), "list")
        if not name:
            raise UserError("a list needs a name, got an empty one")
        with self._change() as database:
            database.execute("INSERT OR IGNORE INTO lists (name) VALUES (?)", (name,))
            sql = "INSERT OR IGNORE INTO members SELECT list, ? FROM lists WHERE name = ?"
            database.executemany(sql, [(operator.index(latent), name) for latent in latents])

    def remove(self, name: str, latent: int) -> None:
        """Take a latent off a list, which stays, be it empty."""
        self.named(name)
        with self._change() as database:
            sql = "DELETE FROM members WHERE latent = ? AND list = (SELECT list FROM lists WHERE name = ?)"
            database.execute(sql, (operator.index(latent), name))

    def delete(self, name: str) -> None:
        """Remove a list; its latents keep their labels."""
        self.named(name)
        with self._change() as database:
            database.execute("DELETE FROM lists WHERE name = ?", (name,))

    def rename(self, name: str, new: str) -> None:
        """Give a list another name; raises ``UserError`` where that is taken."""
        self.named(name)
        new = _checked(_line(new), "list")
        if not new:
            raise UserError("a list needs a name, got an empty one")
        if new != name and any(one.name == new for one in self.lists()):
            raise UserError(f"there is a list {new!r} already; choose another name")
        with self._change() as database:
            database.execute("UPDATE lists SET name = ? WHERE name = ?", (new, name))

    def _read(self, sql: str, *parameters: Any) -> list[tuple]:
        if not self.path.is_file():
            return []
        try:
            with closing(sqlite3.connect(self.path, timeout=_PATIENCE)) as database:
                if self._version(database) < len(MIGRATIONS):
                    self._migrate(database)
                return database.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._failed("read", error) from error

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """A transaction that holds the only right to write."""
        try:
            with closing(sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)) as database:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA foreign_keys = ON")
                if self._version(database) < len(MIGRATIONS):
                    self._migrate(database)
                database.execute("BEGIN IMMEDIATE")
                yield database
                database.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._failed("write", error) from error

    def _version(self, database: sqlite3.Connection) -> int:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise UserError(
                f"{str(self.path)!r} has version {version}, this version of unweave reads {len(MIGRATIONS)}; update it"
            )
        return version

    def _migrate(self, database: sqlite3.Connection) -> None:
        database.isolation_level = None
        database.execute("BEGIN IMMEDIATE")  # of several that come at once, one migrates and the others find it done
        for number in range(self._version(database), len(MIGRATIONS)):
            for statement in MIGRATIONS[number].split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {number + 1}")
        database.execute("COMMIT")

    def _failed(self, verb: str, error: sqlite3.Error) -> UserError:
        return UserError(f"cannot {verb} {str(self.path)!r}: {error}; is the folder writable, and the file whole?")


def _line(text: str) -> str:
    return " ".join(text.split())


def _checked(text: str, kind: str) -> str:
    if len(text) > LONGEST[kind]:
        raise UserError(f"a {kind} has at most {LONGEST[kind]:,} characters, got {len(text):,}")
    return text
