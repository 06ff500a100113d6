"""Texts and tokens with known labels, split by document into those to learn from and those to measure on.

No document has texts on both sides. Which documents are measured is fixed by a checksum of their names, so it is the
same in every run and for every coder.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from unweave.errors import UserError
from unweave.formats.documents import place
from unweave.formats.labelled_records import FieldNames, LabelledRecord, labelled_records

TEST_SHARE = 0.25
"""Share of the documents that are measured on."""
UNLABELLED, CONTINUES = -1, -2
"""Of a character: of no class, and of the class of what stands before it in the same token."""


@dataclass(frozen=True)
class LabelledTexts:
    """Texts of two or more classes."""

    name: str
    texts: tuple[str, ...]
    labels: Int[np.ndarray, " N"]
    """The class of each text, counted from 0."""
    classes: tuple[str, ...]
    documents: Int[np.ndarray, " N"]
    """The document of each text."""
    is_test: Bool[np.ndarray, " N"]
    """Whether it is measured on; else it is learned from."""

    def __post_init__(self) -> None:
        check_labels(self.name, self.labels, self.classes, self.is_test)


@dataclass(frozen=True)
class CrossedTexts:
    """The same texts with a label that a probe should learn, and another that it should not."""

    target: LabelledTexts
    spurious: LabelledTexts

    def __post_init__(self) -> None:
        target, spurious = self.target, self.spurious
        if target.texts != spurious.texts or not np.array_equal(target.is_test, spurious.is_test):
            raise UserError(f"{target.name} and {spurious.name} must label the same texts, split in the same way")
        if len(target.classes) != 2 or len(spurious.classes) != 2:
            raise UserError(
                f"crossed labels have two classes each, got {len(target.classes)} of {target.name} and "
                f"{len(spurious.classes)} of {spurious.name}"
            )
        for side in (False, True):
            cells = target.labels[target.is_test == side] * 2 + spurious.labels[target.is_test == side]
            if missing := set(range(4)) - set(cells.tolist()):
                cell = min(missing)
                raise UserError(
                    f"no text to {'measure on' if side else 'learn from'} is both {target.classes[cell // 2]!r} and "
                    f"{spurious.classes[cell % 2]!r}; give texts of all four combinations"
                )

    @property
    def name(self) -> str:
        return f"{self.target.name} against {self.spurious.name}"


@dataclass(frozen=True)
class LabelledTokens:
    """Texts whose characters have labels, from which any tokenizer's tokens get theirs."""

    name: str
    texts: tuple[str, ...]
    characters: tuple[Int[np.ndarray, " _"], ...]
    """For each text the class of each of its characters, ``UNLABELLED``, or ``CONTINUES``."""
    classes: tuple[str, ...]
    documents: Int[np.ndarray, " N"]
    is_test: Bool[np.ndarray, " N"]


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """Where labelled texts are read from."""

    source: str
    """A .jsonl or .csv file, a folder that ``datasets`` can read, or ``hf:`` and the id of a data set."""
    text: str = "text"
    """Field that holds the text."""
    label: str = "label"
    """Field that holds the class."""
    document: str = ""
    """Field that says which texts are of one document; empty: each is its own."""
    split: str = "train"
    """Which split of a data set."""
    test_split: str = ""
    """Split to measure on; empty: a quarter of the documents is."""
    subset: str = ""
    """Which configuration of a data set of the hub that has several."""
    at_most: int = 20_000
    """Records that are read of a split."""
    per_class: int = 1000
    """Texts that are kept of each class, on each side."""


def read_task(config: TaskConfig) -> LabelledTexts:
    """Labelled texts of a file or a data set; raises ``UserError`` where they are no task."""
    fields = FieldNames(config.text, config.label, config.document)

    def read(split: str) -> list[LabelledRecord]:
        return labelled_records(config.source, fields, split=split, subset=config.subset, at_most=config.at_most)

    records = read(config.split)
    is_test = None
    if config.test_split:
        measured = read(config.test_split)
        is_test = np.repeat([False, True], [len(records), len(measured)])
        records += [record._replace(document=f"{config.test_split}:{record.document}") for record in measured]
    return labelled_texts(config.source, records, is_test=is_test, per_class=config.per_class)


def labelled_texts(
    name: str,
    records: Sequence[LabelledRecord],
    *,
    is_test: Bool[np.ndarray, " N"] | None = None,
    per_class: int | None = None,
    classes: Sequence[str] | None = None,
) -> LabelledTexts:
    """A task of records, of which each class keeps ``per_class`` on each side.

    ``is_test``: which are measured on; by default that is decided by the names of their documents. ``classes``: their
    order, by default that of the alphabet.
    """
    found = sorted({record.label for record in records})
    classes = tuple(found if classes is None else classes)
    if unknown := [label for label in found if label not in classes]:
        raise UserError(f"task {name!r} has texts of the class {unknown[0]!r}, which is not among {', '.join(classes)}")
    if is_test is None:
        is_test = np.array([is_measured(record.document) for record in records], dtype=bool)
    labels = np.array([classes.index(record.label) for record in records], dtype=np.int64)
    kept = some_of_each(labels * 2 + is_test, per_class)
    numbers = document_numbers([records[i].document for i in kept])
    texts = tuple(records[i].text for i in kept)
    return LabelledTexts(name, texts, labels[kept], classes, numbers, is_test[kept])


def is_measured(document: str) -> bool:
    """Whether a document is measured on."""
    return place(document) < TEST_SHARE


def some_of_each(kinds_N: Int[np.ndarray, " N"], at_most: int | None) -> Int[np.ndarray, " M"]:
    """Ascending places of so many of each kind, evenly spaced."""
    if at_most is None:
        return np.arange(len(kinds_N))
    found = [np.empty(0, dtype=np.int64)]
    for kind in np.unique(kinds_N):
        places = np.flatnonzero(kinds_N == kind)
        n = min(len(places), at_most)
        found.append(places[np.arange(n) * len(places) // n])
    return np.sort(np.concatenate(found))


def document_numbers(names: Sequence[str]) -> Int[np.ndarray, " N"]:
    """A number for each document that follows from its name, so that it is the same in every task."""
    return np.array([zlib.crc32(name.encode()) for name in names], dtype=np.int64)


def check_labels(
    name: str, labels_N: Int[np.ndarray, " N"], classes: Sequence[str], is_test_N: Bool[np.ndarray, " N"]
) -> None:
    """Raise ``UserError`` unless there are two classes or more, each with something on both sides."""
    if len(classes) < 2:
        raise UserError(
            f"task {name!r} has {'only the class ' + repr(classes[0]) if classes else 'no texts'}; a probe needs two"
        )
    for side in (False, True):
        counts = np.bincount(labels_N[is_test_N == side], minlength=len(classes))
        if not counts.all():
            raise UserError(
                f"class {classes[int(counts.argmin())]!r} of task {name!r} has nothing to "
                f"{'measure on' if side else 'learn from'}; give more of it, from several documents"
            )
