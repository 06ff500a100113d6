"""A text corpus that every Python carries: the running interpreter's standard library and its documentation.

Documents are the ``.py`` files of the standard library (its test suite too, where it is installed) and the language
topics of ``pydoc``. The help pages of compiled modules are left out: they show this process's paths and environment.
"""

import os
import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path

from unweave.errors import UserError
from unweave.types import Document

HELD_OUT_ONE_IN = 16
"""One top-level module in so many is held out: never trained on, only measured on."""

_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__", "_bundled", "encodings", "pydoc_data"}
"""Other people's packages, and modules that are tables rather than text."""

_BUILD_VALUES = ("_sysconfigdata", "config-")
"""What the interpreter was built with: paths of one machine, no text."""


def is_held_out(name: str) -> bool:
    """Whether a document belongs to a held-out module: the CRC-32 of its subject's name is divisible by 16.

    A module and the tests of that module share a subject, so both fall on the same side on every Python version.
    """
    return zlib.crc32(_subject(name).encode()) % HELD_OUT_ONE_IN == 0


def stdlib_documents() -> list[Document]:
    """All documents of the running interpreter in a fixed, mixed order (sorted by the CRC-32 of their names)."""
    documents = [*_source_files(), *_language_topics()]
    if not documents:
        raise UserError("builtin:stdlib found no sources in this Python; install its standard library or name a text")
    return sorted(documents, key=lambda document: zlib.crc32(document.name.encode()))


def _subject(name: str) -> str:
    first, *rest = name.split(".")
    if first == "test" and rest:
        first = rest[0]
    if first == "topic" and rest:
        return name
    return first.removeprefix("test_").removeprefix("_")


def _source_files() -> Iterator[Document]:
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(_python_files(root)):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[0].startswith(_BUILD_VALUES):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):  # the test suite carries files that are broken on purpose
            continue
        if text.strip():
            yield Document(".".join(parts), text)


def _python_files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _SKIPPED_FOLDERS]
        yield from (Path(folder, name) for name in names if name.endswith(".py"))


def _language_topics() -> Iterator[Document]:
    from pydoc_data.topics import topics

    for name, text in topics.items():
        yield Document(f"topic.{name}", text)
