"""Labels and lists: what was written is read again, by whom and whenever it is read."""

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from unweave.errors import UserError
from unweave.storage import notes as notes_module
from unweave.storage.notes import Change, Label, NamedList, Notes


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes.sqlite")


def test_reading_makes_no_file(notes: Notes) -> None:
    assert notes.label(7) == Label() and notes.labels() == {} and notes.lists() == [] and notes.history(7) == []
    assert not notes.path.exists()


def test_a_label_stays_while_only_the_note_is_changed(notes: Notes) -> None:
    notes.write(7, label="  opening\n brackets ")
    assert notes.write(7, note="as in f(x)\nand g(x) ") == Label("opening brackets", "as in f(x)\nand g(x)")
    assert Notes(notes.path).label(7) == Label("opening brackets", "as in f(x)\nand g(x)")
    assert notes.labels() == {7: "opening brackets"}
    notes.write(7, label="")
    assert notes.labels() == {} and notes.label(7).note == "as in f(x)\nand g(x)"


def test_the_history_has_every_change_and_no_other(notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 200.0, 300.0])
    monkeypatch.setattr(notes_module.time, "time", lambda: next(times))
    notes.write(63, label="first")
    notes.write(63, label="second", note="why")
    notes.write(63, label="second")
    assert notes.history(63) == [
        Change(300.0, "note", "", "why"),
        Change(200.0, "label", "first", "second"),
        Change(100.0, "label", "", "first"),
    ]
    assert notes.history(7) == []


def test_a_search_finds_labels_and_notes_in_any_case(notes: Notes) -> None:
    notes.write(100, label="ÜBERSCHRIFT")
    notes.write(7, note="the überschrift of a page")
    notes.write(63, label="something else, 100 % of it")
    assert notes.search("Überschrift") == [7, 100]
    assert notes.search("100 %") == [63] and notes.search("'; DROP TABLE labels") == []


def test_a_latent_is_on_the_lists_that_it_was_put_on(notes: Notes) -> None:
    for latent in (63, 7, 63):
        notes.add(" good   ones", latent)
    notes.add("bad ones", 7)
    assert notes.lists() == [NamedList("bad ones", [7]), NamedList("good ones", [7, 63])]
    notes.remove("bad ones", 7)
    notes.rename("good ones", "best")
    assert notes.lists() == [NamedList("bad ones", []), NamedList("best", [7, 63])]
    notes.delete("best")
    notes.add("best", 100)
    assert notes.named("best") == NamedList("best", [100]), "a list that was removed leaves no latents behind"


def test_what_cannot_be_written_is_refused_in_one_line(notes: Notes) -> None:
    notes.add("one", 7)
    notes.add("two", 7)
    with pytest.raises(UserError, match="at most 200 characters, got 201"):
        notes.write(7, label="x" * 201)
    with pytest.raises(UserError, match="needs a name"):
        notes.add(" \n", 7)
    with pytest.raises(UserError, match="there is a list 'two' already"):
        notes.rename("one", "two")
    with pytest.raises(UserError, match="no list 'three'"):
        notes.delete("three")
    assert [one.name for one in notes.lists()] == ["one", "two"]


def test_a_file_of_a_later_version_or_no_database_is_refused(notes: Notes) -> None:
    notes.add("one", 7)
    with closing(sqlite3.connect(notes.path)) as database:
        database.execute("PRAGMA user_version = 63")
    with pytest.raises(UserError, match="has version 63"):
        notes.lists()
    other = Notes(notes.path.with_name("other.sqlite"))
    other.path.write_text("no database at all, but long enough to be read as the header of one" * 10)
    with pytest.raises(UserError, match="cannot read"):
        other.labels()


def test_a_file_of_the_first_version_gets_what_was_added_since(notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    notes.write(7, label="old")
    more = (*notes_module.MIGRATIONS, "ALTER TABLE labels ADD COLUMN author TEXT NOT NULL DEFAULT 'me'")
    monkeypatch.setattr(notes_module, "MIGRATIONS", more)
    assert notes.labels() == {7: "old"}
    with closing(sqlite3.connect(notes.path)) as database:
        assert database.execute("SELECT latent, author FROM labels").fetchall() == [(7, "me")]
        assert database.execute("PRAGMA user_version").fetchone() == (len(more),)


def test_writers_in_two_processes_and_four_threads_lose_nothing(notes: Notes) -> None:
    script = (
        "import sys; from pathlib import Path; from unweave.storage.notes import Notes\n"
        "notes = Notes(Path(sys.argv[1]))\n"
        "for latent in range(0, 63): notes.add('both', 2 * latent); notes.write(7, note=f'other {latent}')"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(notes.path)])

    def write(first: int) -> None:
        for latent in range(first, 63, 4):
            notes.add("both", 2 * latent + 1)
            notes.write(7, note=f"mine {latent}")

    threads = [threading.Thread(target=write, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert other.wait(timeout=60) == 0
    assert notes.named("both").latents == list(range(126))
    changes = notes.history(7)[::-1]
    assert len(changes) == 126 and [change.old for change in changes[1:]] == [change.new for change in changes[:-1]]
