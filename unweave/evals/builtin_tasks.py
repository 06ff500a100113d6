"""Labelled texts and tokens that every Python carries: tasks made of ``builtin:stdlib``.

piece         a piece of source is code, a docstring or a comment (without their signs)
package       which of the five best-filled packages a piece of source is from
crossed pairs two packages against code or docstring, for SCR: four pairs
token_class   the class of a token by Python's ``tokenize``
identifier    what a name stands for: a function, a class, a module, an attribute
in_string     whether a token is inside a string
first_letter  the first letter of the word that a token begins

The order of documents is fixed by their names, and no random number is drawn.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from unweave.errors import UserError, nearest
from unweave.evals.python_source import IDENTIFIERS, LETTERS, PIECES, TOKEN_CLASSES, WHERE, Source, first_letters
from unweave.evals.tasks import CrossedTexts, LabelledTexts, LabelledTokens, document_numbers, is_measured
from unweave.types import Document

TEXT_TASKS = ("piece", "package")
TOKEN_TASKS = ("token_class", "identifier", "in_string", "first_letter")
_PIECE = (120, 600)
"""Characters of a piece, at least and at most."""
_WINDOW = 800
"""Characters of a text whose tokens are labelled."""
_PER_DOCUMENT = 6
"""Pieces of one kind that are taken of a document, so that a task has many documents."""
_LONGEST = 60_000
"""Characters of a document, beyond which it is left out: reading it would take as long as many others."""
_FEWEST = 8
"""Texts of a combination of two labels, on each side, below which a pair of packages is left out."""
_PACKAGES = 5
_PAIRS = 4


class _Found(NamedTuple):
    """A piece of a document and its class."""

    text: str
    label: int
    document: str


def builtin_texts(name: str, documents: Sequence[Document], per_class: int = 300) -> LabelledTexts:
    """A task by name; up to ``per_class`` texts of each class to learn from, and a third as many to measure on."""
    if name == "piece":
        return _task("piece", _filled(documents, _by_kind, len(PIECES), per_class), PIECES)
    if name == "package":
        packages = _packages(documents)
        inside = [document for document in documents if _package(document) in packages]
        found = _filled(inside, lambda document: _by_package(document, packages), len(packages), per_class)
        return _task("package", found, packages)
    raise UserError(f"there is no task {name!r}{nearest(name, TEXT_TASKS)}; choose from {', '.join(TEXT_TASKS)}")


def builtin_crossed(documents: Sequence[Document], per_cell: int = 60) -> list[CrossedTexts]:
    """Up to four pairs of packages, each against code or docstring; all four combinations are equally frequent."""
    pairs = []
    for pair in itertools.combinations(_packages(documents), 2):
        inside = [document for document in documents if _package(document) in pair]
        found = _filled(inside, lambda document, pair=pair: _by_both(document, pair), 4, per_cell)
        sides = [[len(_of(found, label, side)) for label in range(4)] for side in (False, True)]
        if min(map(min, sides)) < min(_FEWEST, max(1, per_cell // 3)):
            continue
        even = [
            piece
            for side, counts in zip((False, True), sides, strict=True)
            for label in range(4)
            for piece in _of(found, label, side)[: min(counts)]
        ]
        packages = _task(
            f"package {pair[0]} or {pair[1]}", [piece._replace(label=piece.label // 2) for piece in even], pair
        )
        kinds = _task("piece", [piece._replace(label=piece.label % 2) for piece in even], PIECES[:2])
        pairs.append(CrossedTexts(packages, kinds))
        if len(pairs) == _PAIRS:
            break
    if not pairs:
        raise UserError("this Python has no two packages with enough code and docstrings; give crossed labels instead")
    return pairs


def builtin_tokens(name: str, documents: Sequence[Document], n_texts: int = 200) -> LabelledTokens:
    """A task by name, of a stretch from the middle of each of the first documents that Python can read."""
    if name not in _TOKEN_LABELS:
        raise UserError(f"there is no task {name!r}{nearest(name, TOKEN_TASKS)}; choose from {', '.join(TOKEN_TASKS)}")
    classes, label = _TOKEN_LABELS[name]
    texts, characters, names = [], [], []
    for document in _readable(documents):
        if len(texts) == n_texts:
            break
        try:
            labels = label(document.text)
        except ValueError:  # the standard library's tests carry files that are broken on purpose
            continue
        start = document.text.rfind("\n", 0, 1 + max(0, len(document.text) - _WINDOW) // 2) + 1
        window = slice(start, start + _WINDOW)
        texts.append(document.text[window])
        characters.append(labels[window])
        names.append(document.name)
    if not texts:
        raise UserError("none of the documents is Python source that this Python can read")
    is_test = np.array([is_measured(name) for name in names], dtype=bool)
    return LabelledTokens(name, tuple(texts), tuple(characters), classes, document_numbers(names), is_test)


_TOKEN_LABELS: dict[str, tuple[tuple[str, ...], Callable[[str], Int[np.ndarray, " characters"]]]] = {
    "token_class": (TOKEN_CLASSES, lambda text: Source(text).token_classes()),
    "identifier": (IDENTIFIERS, lambda text: Source(text).identifiers()),
    "in_string": (WHERE, lambda text: Source(text).inside_strings()),
    "first_letter": (LETTERS, first_letters),
}


def _filled(
    documents: Sequence[Document], pieces: Callable[[Document], Iterator[_Found]], n_classes: int, per_class: int
) -> list[_Found]:
    """Pieces in the order of the documents, until every class has enough on both sides."""
    wanted = {False: per_class, True: max(1, per_class // 3)}
    counts = {side: [0] * n_classes for side in wanted}
    found = []
    for document in _readable(documents):
        side = is_measured(document.name)
        if min(counts[side]) >= wanted[side]:
            if all(min(counts[side]) >= wanted[side] for side in wanted):
                break
            continue
        of_document: Counter[int] = Counter()
        for piece in pieces(document):
            of_document[piece.label] += 1
            if of_document[piece.label] <= _PER_DOCUMENT and counts[side][piece.label] < wanted[side]:
                counts[side][piece.label] += 1
                found.append(piece)
    return found


def _readable(documents: Sequence[Document]) -> Iterator[Document]:
    return (doc for doc in documents if len(doc.text) <= _LONGEST and not doc.name.startswith("topic."))


def _by_kind(document: Document) -> Iterator[_Found]:
    try:
        source = Source(document.text)
    except ValueError:
        return
    for piece in source.pieces(*_PIECE):
        yield _Found(piece.text, PIECES.index(piece.kind), document.name)


def _by_package(document: Document, packages: Sequence[str]) -> Iterator[_Found]:
    """Stretches of whole lines, one after the other."""
    text, (at_least, at_most), start = document.text, _PIECE, 0
    while start < len(text):
        end = text.rfind("\n", start, start + at_most) + 1 or min(len(text), start + at_most)
        if len(text[start:end].strip()) >= at_least:
            yield _Found(text[start:end], packages.index(_package(document)), document.name)
        start = end


def _by_both(document: Document, packages: Sequence[str]) -> Iterator[_Found]:
    """Code and docstrings; the class is twice that of the package plus that of the kind."""
    package = packages.index(_package(document))
    for piece in _by_kind(document):
        if piece.label < 2:
            yield piece._replace(label=2 * package + piece.label)


def _of(found: Sequence[_Found], label: int, is_test: bool) -> list[_Found]:
    return [piece for piece in found if piece.label == label and is_measured(piece.document) == is_test]


def _task(name: str, found: Sequence[_Found], classes: tuple[str, ...]) -> LabelledTexts:
    names = [piece.document for piece in found]
    labels = np.array([piece.label for piece in found], dtype=np.int64)
    is_test = np.array([is_measured(name) for name in names], dtype=bool)
    return LabelledTexts(name, tuple(piece.text for piece in found), labels, classes, document_numbers(names), is_test)


def _package(document: Document) -> str:
    return document.name.partition(".")[0]


def _packages(documents: Sequence[Document]) -> tuple[str, ...]:
    """The packages with the most modules, apart from the test suite."""
    counts = Counter(_package(document) for document in _readable(documents))
    del counts["test"]
    ranked = sorted(counts, key=lambda package: (-counts[package], package))
    if len(ranked) < 2:
        raise UserError("the documents are of fewer than two packages, so there is nothing to tell apart")
    return tuple(ranked[:_PACKAGES])
