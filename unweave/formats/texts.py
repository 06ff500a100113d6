"""Read text to train and measure on: `builtin:stdlib`, a text file, JSON lines, or a folder of such files.

Part of the documents is held out: never trained on, only measured on. Which part is fixed by a checksum of each
document's name, so it is the same in every run, and adding files moves no document from one part to the other.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from unweave.errors import UserError, nearest
from unweave.formats.stdlib_corpus import is_held_out, stdlib_documents
from unweave.types import Document

_PIECE = 10_000
"""Characters after which a text without separators is cut at the next line end, so that part of it can be held out."""
_ENDINGS = (".txt", ".md", ".py", ".jsonl")


class Corpus(NamedTuple):
    """Documents to train on, and documents to measure on."""

    train: list[Document]
    held_out: list[Document]


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Where the text comes from."""

    source: str = "builtin:stdlib"
    """``builtin:stdlib`` (the running interpreter's library), a .txt, .md, .py or .jsonl file, or a folder of them."""
    separator: str = ""
    """String between the documents of a text file, such as "<|endoftext|>"; else long texts are cut at line ends."""
    field: str = "text"
    """Key of the text in each line of a .jsonl file."""
    held_out: float = 0.1
    """Share of the documents kept for measuring; ``builtin:stdlib`` holds out one module in 16 instead."""

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise UserError(f"text.held_out is a share between 0 and 1, got {self.held_out}")


def read_corpus(config: TextConfig) -> Corpus:
    """All documents of a source, split in two; raises ``UserError`` where there is no text."""
    if config.source.startswith("builtin:"):
        if config.source != "builtin:stdlib":
            raise UserError(f"there is no text {config.source!r}{nearest(config.source, ['builtin:stdlib'])}")
        if config != TextConfig(source=config.source):
            raise UserError(
                "text.separator, text.field and text.held_out have no effect on builtin:stdlib; remove them"
            )
        documents = stdlib_documents()
        return Corpus(
            [document for document in documents if not is_held_out(document.name)],
            [document for document in documents if is_held_out(document.name)],
        )
    documents = _local_documents(Path(config.source).expanduser(), config)
    if len(documents) < 2:
        raise UserError(
            f"text {config.source!r} is a single document, and one must be held out; give more text, or set "
            "text.separator to what stands between its documents"
        )
    mixed = sorted(documents, key=_place)
    below = sum(_place(document) < config.held_out for document in mixed)
    n_held_out = min(len(mixed) - 1, max(1, below))
    return Corpus(mixed[n_held_out:], mixed[:n_held_out])


def _place(document: Document) -> float:
    """A number in [0, 1) that looks random and depends on the document's name alone."""
    return int.from_bytes(hashlib.sha256(document.name.encode()).digest()[:6], "big") / 2**48


def _local_documents(path: Path, config: TextConfig) -> list[Document]:
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in _ENDINGS and file.is_file())
        if not files:
            raise UserError(f"folder {str(path)!r} has no {', '.join(_ENDINGS)} file to read")
    elif path.is_file():
        files = [path]
    else:
        raise UserError(f"there is no text {str(path)!r}; give a file, a folder, or builtin:stdlib")
    root = path if path.is_dir() else path.parent
    documents = [doc for file in files for doc in _file_documents(file, file.relative_to(root).as_posix(), config)]
    if not documents:
        raise UserError(f"text {str(path)!r} is empty; give a file with text in it")
    return documents


def _file_documents(file: Path, name: str, config: TextConfig) -> list[Document]:
    try:
        content = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{str(file)!r} is not UTF-8 text (byte {error.start}); convert it or leave it out") from error
    if file.suffix == ".jsonl":
        texts = _json_lines(content, file, config.field)
    elif config.separator:
        texts = content.split(config.separator)
    else:
        texts = _cut(content)
    return [Document(f"{name}#{i}", text) for i, text in enumerate(texts) if text.strip()]


def _json_lines(content: str, file: Path, field: str) -> list[str]:
    texts = []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{str(file)!r} line {number} is not JSON: {error.msg}") from error
        if not isinstance(record, dict) or not isinstance(record.get(field), str):
            keys = list(record) if isinstance(record, dict) else []
            raise UserError(
                f"{str(file)!r} line {number} has no text under {field!r}{nearest(field, keys)}; set text.field"
            )
        texts.append(record[field])
    return texts


def _cut(content: str) -> list[str]:
    pieces, start = [], 0
    while start < len(content):
        end = content.find("\n", start + _PIECE)
        end = len(content) if end < 0 else end + 1
        pieces.append(content[start:end])
        start = end
    return pieces
