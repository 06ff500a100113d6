"""Documents in a fixed order that can be read again and again: listed in memory, or streamed from where they lie.

Which part of them is held out is decided by a checksum of each document's name, so it is the same in every run.
"""

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, final

from unweave.errors import UserError
from unweave.types import Document

Told = Callable[[str], None]
"""Takes a line that the user should see."""

_FEW = 1000
"""Rows up to which a stream of known length is given a document on both sides, as listed documents are."""


class Documents(ABC):
    """Documents that can be iterated again and again, each time in the same order."""

    @property
    @abstractmethod
    def count(self) -> int | None:
        """Documents in one pass; None where only reading to the end would tell."""

    @abstractmethod
    def __iter__(self) -> Iterator[Document]: ...

    @abstractmethod
    def forever(self, start: int = 0, told: Told | None = None) -> Iterator[Document]:
        """Endless repetition from document number ``start``, counted over repetitions.

        ``told`` hears once of every source that ends and is started again. Raises ``UserError`` where there is none.
        """

    @abstractmethod
    def names(self) -> Iterator[str]:
        """The names in order, without reading the documents; beyond the end where that is not known."""

    @abstractmethod
    def identity(self) -> Iterator[bytes]:
        """What a checksum of the text is made of: the text itself where it is in memory, else what names it."""


class Corpus(NamedTuple):
    """Documents to train on, and documents to measure on."""

    train: Documents
    held_out: Documents

    def sha256(self) -> str:
        """Checksum of the text."""
        digest = hashlib.sha256()
        for part in itertools.chain(self.train.identity(), self.held_out.identity()):
            digest.update(part)
        return digest.hexdigest()


@final
@dataclass(frozen=True)
class ListedDocuments(Documents):
    """Documents in memory."""

    source: str = field(compare=False)
    documents: tuple[Document, ...]

    @property
    def count(self) -> int:
        return len(self.documents)

    def __len__(self) -> int:
        return len(self.documents)

    def __iter__(self) -> Iterator[Document]:
        return iter(self.documents)

    def forever(self, start: int = 0, told: Told | None = None) -> Iterator[Document]:
        return _repeated(lambda number: itertools.islice(self.documents, number, None), self, self.source, start, told)

    def names(self) -> Iterator[str]:
        return (document.name for document in self.documents)

    def identity(self) -> Iterator[bytes]:
        for document in self.documents:
            yield document.name.encode() + b"\0" + document.text.encode() + b"\0"


@dataclass(frozen=True)
class Stream:
    """Documents that are read from where they lie."""

    source: str
    """What the user wrote."""
    read: Callable[[int], Iterator[Document]]
    """All documents from a number on; none behind the end."""
    name_of: Callable[[int], str]
    """The name of a document, which is known without reading it."""
    n_rows: int | None
    """Documents; None where the source does not tell."""
    identity: str
    """What tells this text from others."""


@final
@dataclass(frozen=True)
class StreamedDocuments(Documents):
    """Those documents of a stream that are on one side of the split."""

    stream: Stream
    belongs: Callable[[int], bool]

    @cached_property
    def count(self) -> int | None:  # pyright: ignore[reportIncompatibleMethodOverride]  # computed once
        return None if self.stream.n_rows is None else sum(1 for _ in self._numbers())

    def __iter__(self) -> Iterator[Document]:
        return self._read(0)

    def forever(self, start: int = 0, told: Told | None = None) -> Iterator[Document]:
        return _repeated(self._read, self, self.stream.source, start, told)

    def names(self) -> Iterator[str]:
        return (self.stream.name_of(number) for number in self._numbers())

    def identity(self) -> Iterator[bytes]:
        yield self.stream.identity.encode() + b"\0"

    def _numbers(self) -> Iterator[int]:
        rows = itertools.count() if self.stream.n_rows is None else range(self.stream.n_rows)
        return (number for number in rows if self.belongs(number))

    def _read(self, start: int) -> Iterator[Document]:
        first = next(itertools.islice(self._numbers(), start, None), None)
        if first is not None:
            for number, document in enumerate(self.stream.read(first), first):
                if self.belongs(number):
                    yield document


def place(name: str) -> float:
    """A number in [0, 1) that looks random and depends on the document's name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def split_listed(source: str, documents: list[Document], share: float) -> Corpus:
    """Listed documents in two, in an order mixed by their names; both parts have at least one."""
    mixed = tuple(sorted(documents, key=lambda document: place(document.name)))
    n_held_out = _n_held_out([place(document.name) for document in mixed], share)
    return Corpus(ListedDocuments(source, mixed[n_held_out:]), ListedDocuments(source, mixed[:n_held_out]))


def split_stream(stream: Stream, share: float) -> Corpus:
    """A stream in two, both in the order of the stream."""
    bound = share
    if stream.n_rows is not None and 2 <= stream.n_rows <= _FEW:
        places = sorted(place(stream.name_of(number)) for number in range(stream.n_rows))
        bound = places[_n_held_out(places, share)]

    def is_held_out(number: int) -> bool:
        return place(stream.name_of(number)) < bound

    return Corpus(StreamedDocuments(stream, lambda n: not is_held_out(n)), StreamedDocuments(stream, is_held_out))


def _n_held_out(places: list[float], share: float) -> int:
    return min(len(places) - 1, max(1, sum(at < share for at in places)))


def _repeated(
    read: Callable[[int], Iterator[Document]], documents: Documents, source: str, start: int, told: Told | None
) -> Iterator[Document]:
    skipped = start % documents.count if start and documents.count else start
    while True:
        n_read = 0
        for document in read(skipped):
            n_read += 1
            yield document
        if not n_read and not skipped:
            raise UserError(f"text {source!r} has no documents to read; give a text with at least two")
        if not n_read:  # the end lies before ``start``, which only reading could tell
            skipped %= max(1, sum(1 for _ in documents))
            continue
        if told is not None:
            told(f"text {source!r} has ended after {skipped + n_read:,} documents and is read again from its start")
            told = None
        skipped = 0
