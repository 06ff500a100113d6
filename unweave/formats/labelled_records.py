"""Texts with labels: .jsonl and .csv files, folders written by ``datasets``, and data sets of the hub."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unweave.errors import UserError, nearest
from unweave.formats import tables
from unweave.formats.hub import open_split

ENDINGS = (".jsonl", ".csv")


class FieldNames(NamedTuple):
    """Which fields of a record hold what."""

    text: str = "text"
    label: str = "label"
    document: str = ""
    """What records of one document have in common; empty: each record is a document of its own."""


class LabelledRecord(NamedTuple):
    """One text and the name of its class."""

    text: str
    label: str
    document: str


def labelled_records(
    source: str, fields: FieldNames, *, split: str = "train", subset: str = "", at_most: int | None = None
) -> list[LabelledRecord]:
    """The first records of a file, a folder, or a data set (``hf:`` and its id); ``at_most`` ends the reading.

    Labels that a data set keeps as numbers get their names. Raises ``UserError`` where a field is missing, a text is
    empty, or the hub does not answer.
    """
    path = Path(source).expanduser()
    if source.startswith("hf:"):
        rows = open_split(source, split, subset, "task")
        numbered, labels = enumerate(rows), _label_names(rows.features, fields.label)
    elif path.is_dir():
        rows = _saved(path, split) if tables.is_saved(path) else open_split(f"hf:{path.resolve()}", split, "", "task")
        numbered, labels = enumerate(rows), _label_names(rows.features, fields.label)
    elif path.is_file() and path.suffix in ENDINGS:
        numbered, labels = (_json_lines if path.suffix == ".jsonl" else _csv_rows)(path), None
    else:
        raise UserError(f"there is no task {source!r}; give a {' or '.join(ENDINGS)} file, a folder, or hf: and an id")
    records = []
    for number, record in numbered:
        if at_most is not None and len(records) == at_most:
            break
        records.append(_record(record, fields, labels, source, number))
    return records


def _record(record: Any, fields: FieldNames, labels: list[str] | None, source: str, number: int) -> LabelledRecord:
    values = {}
    for role, field in fields._asdict().items():
        if not field:
            continue
        if not isinstance(record, Mapping) or record.get(field) is None:
            known = [str(key) for key in record] if isinstance(record, Mapping) else []
            raise UserError(
                f"task {source!r} record {number} has nothing under {field!r}{nearest(field, known)}; set task.{role}"
            )
        values[role] = record[field]
    if not isinstance(values["text"], str) or not values["text"].strip():
        raise UserError(f"task {source!r} record {number} has no text under {fields.text!r}; leave it out")
    label = values["label"]
    if labels is not None and isinstance(label, int):
        if not 0 <= label < len(labels):
            raise UserError(f"task {source!r} record {number} has label {label} of {len(labels)} names; leave it out")
        label = labels[label]
    return LabelledRecord(values["text"], str(label), str(values.get("document", f"{source}#{number}")))


def _label_names(features: Any, field: str) -> list[str] | None:
    return getattr(features.get(field), "names", None) if features is not None else None


def _saved(folder: Path, split: str) -> Any:
    import datasets

    saved = datasets.load_from_disk(str(folder))
    if not isinstance(saved, datasets.DatasetDict):
        return saved
    if split not in saved:
        splits = [str(name) for name in saved]
        raise UserError(f"{str(folder)!r} has no split {split!r}{nearest(split, splits)}; set task.split")
    return saved[split]


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(_content(path).split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{str(path)!r} line {number} is not JSON: {error.msg}") from error


def _csv_rows(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        yield from enumerate(csv.DictReader(io.StringIO(_content(path), newline="")), start=1)
    except csv.Error as error:
        raise UserError(f"{str(path)!r} is no table of comma-separated values: {error}") from error


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{str(path)!r} is not UTF-8 text (byte {error.start}); convert it") from error
