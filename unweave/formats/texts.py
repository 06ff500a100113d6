"""Which text to train and measure on: its settings, and the way from each kind of source to documents.

Part of the documents is held out: never trained on, only measured on. Which part is fixed by a checksum of each
document's name, so it is the same in every run, and adding files moves no document from one part to the other.
"""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from unweave.config import build
from unweave.errors import UserError, nearest
from unweave.formats import tables
from unweave.formats.documents import Corpus, ListedDocuments, split_listed, split_stream
from unweave.formats.hub import hub_stream
from unweave.formats.mixture import MixedDocuments
from unweave.formats.stdlib_corpus import is_held_out, stdlib_documents
from unweave.formats.text_files import ENDINGS, file_documents
from unweave.formats.token_file import read_token_file
from unweave.types import Document

_STDLIB = "builtin:stdlib"
_OF_A_SOURCE = ("source", "separator", "field", "split", "subset", "chat")
"""Settings that every source has its own of."""


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One of several sources of text: an entry of ``[[text.mix]]``."""

    source: str
    """As ``text.source``."""
    weight: float = 1.0
    """Its share of the documents, against the weights of the others."""
    separator: str = ""
    """As ``text.separator``."""
    field: str = "text"
    """As ``text.field``."""
    split: str = "train"
    """As ``text.split``."""
    subset: str = ""
    """As ``text.subset``."""
    chat: bool = False
    """As ``text.chat``."""

    def __post_init__(self) -> None:
        if not (self.weight > 0 and math.isfinite(self.weight)):
            raise UserError(f"the weight of {self.source!r} in text.mix is a number above 0, got {self.weight}")


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Where the text comes from."""

    source: str = _STDLIB
    """``builtin:stdlib``, a file or a folder of text or tables, ``hf:`` and a data set, or ``tokens:`` and a file."""
    separator: str = ""
    """String between the documents of a text file, such as "<|endoftext|>"; else long texts are cut at line ends."""
    field: str = "text"
    """Key or column that holds the text; chats are under "messages" unless another one is set."""
    split: str = "train"
    """Which split of a data set."""
    subset: str = ""
    """Which configuration of a data set of the hub that has several."""
    chat: bool = False
    """The field holds lists of turns, each with a role and a content, which the tokenizer's chat template renders."""
    held_out: float = 0.1
    """Share of the documents kept for measuring; ``builtin:stdlib`` holds out one module in 16 instead."""
    mix: tuple[dict[str, Any], ...] = ()
    """Several sources in turn, in place of ``source``: each has a source, a weight, and settings as above."""

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise UserError(f"text.held_out is a share between 0 and 1, got {self.held_out}")
        if self.mix and (given := _changed(self, _OF_A_SOURCE)):
            raise UserError(f"text.{given[0]} has no effect beside text.mix; set it for each source of the mixture")
        self.sources()

    def sources(self) -> tuple[SourceConfig, ...]:
        """The sources of a mixture, or the one that there is."""
        if self.mix:
            return tuple(build(SourceConfig, entry, f"text.mix.{i}") for i, entry in enumerate(self.mix))
        return (SourceConfig(**{name: getattr(self, name) for name in _OF_A_SOURCE}),)


def read_corpus(config: TextConfig, tokenizer: Any = None) -> Corpus:
    """The documents of all sources, split in two; raises ``UserError`` where there is no text.

    ``tokenizer``: that of the model, which a file of tokens must have been written with.
    """
    sources = config.sources()
    for source in sources:
        _check_source(source)
    if config.source == _STDLIB and not config.mix and _changed(config, ("held_out",)):
        raise UserError(f"text.held_out has no effect on {config.source!r}; remove it")
    parts = [_read(source, config.held_out, tokenizer) for source in sources]
    if not config.mix:
        return parts[0]
    weights = tuple(source.weight for source in sources)
    train, held_out = (MixedDocuments(side, weights) for side in zip(*parts, strict=True))
    return Corpus(train, held_out)


def _check_source(config: SourceConfig) -> None:
    """Raise ``UserError`` for settings that have no effect on this kind of source."""
    kind = config.source.partition(":")[0]
    if kind in ("builtin", "tokens"):
        without = ("separator", "field", "split", "subset", "chat")
    else:
        without = ("separator",) if kind == "hf" else ("subset",)
    if given := _changed(config, without):
        raise UserError(f"text.{given[0]} has no effect on {config.source!r}; remove it")


def _changed(config: SourceConfig | TextConfig, names: tuple[str, ...]) -> list[str]:
    return [
        field.name for field in fields(config) if field.name in names and getattr(config, field.name) != field.default
    ]


def _read(config: SourceConfig, held_out: float, tokenizer: Any) -> Corpus:
    kind, separator, _ = config.source.partition(":")
    if kind == "builtin" and separator:
        return _builtin(config.source, held_out)
    if kind == "hf" and separator:
        stream = hub_stream(config.source, config.split, config.subset, config.field, chat=config.chat)
        return split_stream(stream, held_out)
    if kind == "tokens" and separator:
        return read_token_file(config.source, held_out, tokenizer)
    return _local(Path(config.source).expanduser(), config, held_out)


def _builtin(source: str, held_out: float) -> Corpus:
    if source != _STDLIB:
        raise UserError(f"there is no text {source!r}{nearest(source, [_STDLIB])}")
    documents = stdlib_documents()
    train, measured = ([doc for doc in documents if is_held_out(doc.name) == side] for side in (False, True))
    return Corpus(ListedDocuments(source, tuple(train)), ListedDocuments(source, tuple(measured)))


def _local(path: Path, config: SourceConfig, held_out: float) -> Corpus:
    if not path.exists():
        raise UserError(f"there is no text {str(path)!r}; give a file, a folder, or builtin:stdlib")
    if path.is_dir() and tables.is_saved(path):
        stream = tables.saved_data_set(config.source, path, config.split, config.field, chat=config.chat)
        return split_stream(stream, held_out)
    if config.split != "train":
        raise UserError(f"text.split has no effect on {config.source!r}, which has no splits; remove it")
    files = _files(path)
    root = path if path.is_dir() else path.parent
    if files[0].suffix in tables.ENDINGS:
        stream = tables.table_files(config.source, files, root, config.field, chat=config.chat)
        return split_stream(stream, held_out)
    documents: list[Document] = []
    for file in files:
        name = file.relative_to(root).as_posix()
        documents += file_documents(file, name, separator=config.separator, field=config.field, chat=config.chat)
    if not documents:
        raise UserError(f"text {str(path)!r} is empty; give a file with text in it")
    if len(documents) < 2:
        raise UserError(
            f"text {config.source!r} is a single document, and one must be held out; give more text, or set "
            "text.separator to what stands between its documents"
        )
    return split_listed(config.source, documents, held_out)


def _files(path: Path) -> list[Path]:
    """The files of a text, all of one kind: where a folder has tables, notes beside them are no part of the text."""
    if path.is_file():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix in (*ENDINGS, *tables.ENDINGS) and file.is_file())
    if not found:
        raise UserError(f"folder {str(path)!r} has no {', '.join(ENDINGS)}, {', '.join(tables.ENDINGS)} file to read")
    in_tables = [file for file in found if file.suffix in tables.ENDINGS]
    if in_tables and any(file.suffix == ".jsonl" for file in found):
        raise UserError(
            f"folder {str(path)!r} has both .jsonl files and tables; name one of them, or mix with text.mix"
        )
    return in_tables or found
