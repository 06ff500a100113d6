"""Tasks made of the running Python's own sources are balanced, split by document, and the same each time."""

import numpy as np
import pytest

from unweave.errors import UserError
from unweave.evals.builtin_tasks import TOKEN_TASKS, builtin_crossed, builtin_texts, builtin_tokens
from unweave.evals.tasks import UNLABELLED, LabelledTexts
from unweave.types import Document


def _check(task: LabelledTexts, per_class: int) -> None:
    assert not set(task.documents[task.is_test]) & set(task.documents[~task.is_test])
    assert len(set(task.texts)) > 0.9 * len(task.texts)
    counts = np.bincount(task.labels * 2 + task.is_test)
    assert counts[::2].max() <= per_class and counts[1::2].max() <= max(1, per_class // 3)


def test_pieces_of_source_are_told_apart(documents: list[Document]) -> None:
    task = builtin_texts("piece", documents, 21)
    _check(task, 21)
    assert np.bincount(task.labels * 2 + task.is_test).tolist() == [21, 7] * 3
    comments = [text for text, label in zip(task.texts, task.labels, strict=True) if task.classes[label] == "comment"]
    assert not any(text.startswith("#") for text in comments)
    assert builtin_texts("piece", documents, 21).texts == task.texts


def test_pieces_are_of_five_packages(documents: list[Document]) -> None:
    task = builtin_texts("package", documents, 21)
    _check(task, 21)
    assert len(task.classes) == 5 and "test" not in task.classes


def test_crossed_labels_are_equally_frequent_together(documents: list[Document]) -> None:
    pair = builtin_crossed([doc for doc in documents if doc.name.startswith(("idlelib", "email"))], 9)[0]
    cells = 2 * pair.target.labels + pair.spurious.labels
    for side in (False, True):
        counts = np.bincount(cells[pair.target.is_test == side], minlength=4)
        assert counts.min() == counts.max() >= (3 if side else 9)
    assert pair.spurious.classes == ("code", "docstring")


@pytest.mark.parametrize("name", TOKEN_TASKS)
def test_labelled_characters_are_those_of_the_texts(name: str, documents: list[Document]) -> None:
    task = builtin_tokens(name, [doc for doc in documents if len(doc.text) < 6000], 21)
    assert len(task.texts) == 21 and task.is_test.any() and not task.is_test.all()
    assert all(len(text) == len(labels) for text, labels in zip(task.texts, task.characters, strict=True))
    every = np.concatenate(task.characters)
    assert every.max() < len(task.classes) and (every != UNLABELLED).any()


def test_unknown_tasks_and_texts_without_source_are_told(documents: list[Document]) -> None:
    with pytest.raises(UserError, match="there is no task 'pieces'; did you mean 'piece'"):
        builtin_texts("pieces", documents)
    with pytest.raises(UserError, match="choose from token_class, identifier, in_string, first_letter"):
        builtin_tokens("verb", documents)
    broken = [Document("a.b", "def f(:\n  '''")]
    with pytest.raises(UserError, match="none of the documents is Python source"):
        builtin_tokens("token_class", broken)
    with pytest.raises(UserError, match="fewer than two packages"):
        builtin_texts("package", broken)
    with pytest.raises(UserError, match="no two packages with enough code"):
        builtin_crossed([*broken, Document("c.d", "x = 1")])
