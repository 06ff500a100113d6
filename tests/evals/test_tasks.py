"""Labelled texts are checked, split by document, and read from files."""

import json
from pathlib import Path

import numpy as np
import pytest

from unweave.errors import UserError
from unweave.evals.tasks import (
    TEST_SHARE,
    CrossedTexts,
    LabelledTexts,
    TaskConfig,
    document_numbers,
    is_measured,
    labelled_texts,
    read_task,
    some_of_each,
)
from unweave.formats.labelled_records import LabelledRecord


def _records(n: int = 63) -> list[LabelledRecord]:
    return [LabelledRecord(f"text {i}", ("net", "loom", "cloth")[i % 3], f"page {i // 2}") for i in range(n)]


def _crossed(target: list[int], spurious: list[int], is_test: list[bool]) -> CrossedTexts:
    texts = tuple(f"text {i}" for i in range(len(target)))
    sides = [
        LabelledTexts(name, texts, np.array(labels), ("no", "yes"), np.arange(len(texts)), np.array(is_test))
        for name, labels in (("target", target), ("spurious", spurious))
    ]
    return CrossedTexts(*sides)


def test_no_document_is_on_both_sides_and_a_quarter_is_measured() -> None:
    task = labelled_texts("cloth", _records())
    assert task.classes == ("cloth", "loom", "net")
    assert task.labels[:4].tolist() == [2, 1, 0, 2]
    assert not set(task.documents[task.is_test]) & set(task.documents[~task.is_test])
    names = [f"page {i}" for i in range(4000)]
    assert np.mean([is_measured(name) for name in names]) == pytest.approx(TEST_SHARE, abs=0.02)
    numbers = document_numbers(["page 1", "page 2", "page 1"])
    assert numbers[0] == numbers[2] != numbers[1]


def test_of_each_kind_evenly_spaced_ones_are_kept() -> None:
    kinds = np.array([0, 1, 0, 0, 0, 1, 0, 0])
    assert some_of_each(kinds, 3).tolist() == [0, 1, 3, 5, 6]
    assert some_of_each(kinds, None).tolist() == list(range(8))
    task = labelled_texts("cloth", _records(100), per_class=2)
    assert np.bincount(task.labels * 2 + task.is_test).tolist() == [2] * 6


def test_classes_without_texts_are_told() -> None:
    with pytest.raises(UserError, match="task 'cloth' has only the class 'net'; a probe needs two"):
        labelled_texts("cloth", [record._replace(label="net") for record in _records()])
    with pytest.raises(UserError, match="has no texts"):
        labelled_texts("cloth", [])
    with pytest.raises(UserError, match="class 'felt' of task 'cloth' has nothing to learn from"):
        labelled_texts("cloth", _records(), classes=("net", "loom", "cloth", "felt"))
    with pytest.raises(UserError, match="class 'felt', which is not among net, loom"):
        labelled_texts("cloth", [*_records(), LabelledRecord("x", "felt", "y")], classes=("net", "loom", "cloth"))
    one_side = np.arange(63) % 3 == 0
    with pytest.raises(UserError, match="has nothing to"):
        labelled_texts("cloth", _records(), is_test=one_side)


def test_crossed_labels_are_of_the_same_texts_in_all_combinations() -> None:
    four, sides = [0, 0, 1, 1] * 2, [False] * 4 + [True] * 4
    assert _crossed(four, [0, 1] * 4, sides).name == "target against spurious"
    with pytest.raises(UserError, match="no text to measure on is both 'no' and 'yes'"):
        _crossed(four, [0, 1, 0, 1, 0, 0, 0, 1], sides)
    one = _crossed(four, [0, 1] * 4, sides).target
    with pytest.raises(UserError, match="must label the same texts"):
        CrossedTexts(one, LabelledTexts("b", one.texts[::-1], one.labels, one.classes, one.documents, one.is_test))
    three = labelled_texts("cloth", _records())
    with pytest.raises(UserError, match="two classes each, got 3 of cloth and 3"):
        CrossedTexts(three, three)


def test_a_task_is_read_from_a_file_with_fields_by_name(tmp_path: Path) -> None:
    path = tmp_path / "cloth.jsonl"
    rows = [{"what": r.text, "kind": r.label, "page": r.document} for r in _records()]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    task = read_task(TaskConfig(source=str(path), text="what", label="kind", document="page"))
    expected = labelled_texts(str(path), _records())
    assert task.texts == expected.texts and np.array_equal(task.is_test, expected.is_test)


def test_a_split_to_measure_on_is_taken_as_it_is(tmp_path: Path) -> None:
    for split, start in (("train", 0), ("test", 30)):
        lines = [json.dumps({"text": r.text, "label": r.label}) for r in _records()[start : start + 30]]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    task = read_task(TaskConfig(source=str(tmp_path), test_split="test"))
    assert task.texts == tuple(r.text for r in _records(60))
    assert task.is_test.tolist() == [False] * 30 + [True] * 30
