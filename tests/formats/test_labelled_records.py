"""Labelled texts from files, folders and data sets, and what is told where they have none."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from unweave.errors import UserError
from unweave.formats.labelled_records import FieldNames, LabelledRecord, labelled_records

ROWS: list[dict[str, Any]] = [
    {"text": "the warp, tied\nto the beam", "label": "loom", "page": 3},
    {"text": "a seventh knot", "label": "net", "page": 3},
]


def _write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n\n" for row in rows), encoding="utf-8")
    return str(path)


def test_lines_of_json_are_records(tmp_path: Path) -> None:
    source = _write(tmp_path / "a.jsonl", ROWS)
    assert labelled_records(source, FieldNames(document="page")) == [
        LabelledRecord(ROWS[0]["text"], "loom", "3"),
        LabelledRecord(ROWS[1]["text"], "net", "3"),
    ]
    alone = labelled_records(source, FieldNames(), at_most=1)
    assert len(alone) == 1 and alone[0].document == f"{source}#1"


def test_a_table_of_comma_separated_values_has_line_ends_in_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('what,kind\n"the warp, tied\nto the ""beam""",loom\nknot,net\n', encoding="utf-8-sig")
    found = labelled_records(str(path), FieldNames("what", "kind"))
    assert [(record.text, record.label) for record in found] == [
        ('the warp, tied\nto the "beam"', "loom"),
        ("knot", "net"),
    ]


@pytest.mark.parametrize("saved", [True, False], ids=["save_to_disk", "files"])
def test_a_folder_of_datasets_gives_numbered_labels_their_names(tmp_path: Path, saved: bool) -> None:
    folder = tmp_path / "cloth"
    if saved:
        features = datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["net", "loom"])}
        )
        rows = datasets.Dataset.from_dict({"text": ["warp", "knot"], "label": [1, 0]}, features=features)
        datasets.DatasetDict({"train": rows}).save_to_disk(str(folder))
    else:
        folder.mkdir()
        _write(folder / "train.jsonl", [{"text": "warp", "label": "loom"}, {"text": "knot", "label": "net"}])
    found = labelled_records(str(folder), FieldNames())
    assert [(record.text, record.label) for record in found] == [("warp", "loom"), ("knot", "net")]


@pytest.mark.parametrize(
    ("row", "fields", "told"),
    [
        ({"text": "warp"}, FieldNames(), "record 1 has nothing under 'label'; set task.label"),
        ({"text": "warp", "lable": 1}, FieldNames(), "did you mean 'lable'"),
        ({"text": " ", "label": 1}, FieldNames(), "record 1 has no text under 'text'"),
        ({"text": 7, "label": 1}, FieldNames(), "record 1 has no text under 'text'"),
        ({"text": "warp", "label": 1}, FieldNames(document="page"), "has nothing under 'page'; set task.document"),
    ],
)
def test_what_is_missing_is_told_in_a_line(tmp_path: Path, row: dict[str, Any], fields: FieldNames, told: str) -> None:
    with pytest.raises(UserError) as error:
        labelled_records(_write(tmp_path / "a.jsonl", [row]), fields)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_no_records_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no task .*give a \.jsonl or \.csv file"):
        labelled_records(str(tmp_path / "none.txt"), FieldNames())
    (tmp_path / "a.jsonl").write_text("{}\nwarp", encoding="utf-8")
    with pytest.raises(UserError, match="record 1 has nothing under 'text'"):
        labelled_records(str(tmp_path / "a.jsonl"), FieldNames())
    (tmp_path / "a.jsonl").write_text("warp", encoding="utf-8")
    with pytest.raises(UserError, match="line 1 is not JSON"):
        labelled_records(str(tmp_path / "a.jsonl"), FieldNames())
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte 0\)"):
        labelled_records(str(tmp_path / "a.jsonl"), FieldNames())


def test_a_hub_that_does_not_answer_is_told_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"the hub does not answer .* set task\.source to a local file") as error:
        labelled_records("hf:weaver/knots", FieldNames())
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="there is no folder"):
        labelled_records("hf:./weaver/knots", FieldNames())
