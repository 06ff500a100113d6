"""Documents of text files: .txt, .md and .py files, cut into pieces, and .jsonl files with one document a line."""

import json
from pathlib import Path

from unweave.errors import UserError
from unweave.formats.records import document_of, field_name
from unweave.types import Document

ENDINGS = (".txt", ".md", ".py", ".jsonl")
_PIECE = 10_000
"""Characters after which a text without separators is cut at the next line end, so that part of it can be held out."""


def file_documents(file: Path, name: str, *, separator: str, field: str, chat: bool) -> list[Document]:
    """The documents of a file, called by ``name`` and their number in it; those without text are left out."""
    try:
        content = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{str(file)!r} is not UTF-8 text (byte {error.start}); convert it or leave it out") from error
    if file.suffix == ".jsonl":
        return _json_lines(content, file, name, field_name(field, chat=chat), chat=chat)
    if chat:
        raise UserError(f"{str(file)!r} cannot hold chats; text.chat=true reads .jsonl, .parquet, .arrow and data sets")
    texts = content.split(separator) if separator else _cut(content)
    return [Document(f"{name}#{i}", text) for i, text in enumerate(texts) if text.strip()]


def _json_lines(content: str, file: Path, name: str, field: str, *, chat: bool) -> list[Document]:
    documents = []
    numbered = [(number, line) for number, line in enumerate(content.split("\n"), start=1) if line.strip()]
    for i, (number, line) in enumerate(numbered):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{str(file)!r} line {number} is not JSON: {error.msg}") from error
        document = document_of(f"{name}#{i}", record, field, f"{str(file)!r} line {number}", chat=chat)
        if document.text.strip():
            documents.append(document)
    return documents


def _cut(content: str) -> list[str]:
    pieces, start = [], 0
    while start < len(content):
        end = content.find("\n", start + _PIECE)
        end = len(content) if end < 0 else end + 1
        pieces.append(content[start:end])
        start = end
    return pieces
