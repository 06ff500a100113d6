"""A text as tokens on disk, tokenised once and mapped into memory by every run that reads it.

The file is 64 bytes of prelude, the token ids of all documents as 16-bit or 32-bit integers, where each document begins
(64-bit), the documents' names (UTF-8, ended by line feeds), and a JSON header, which the prelude points to. Numbers are
little-endian. The tokens have a checksum per block of 4 MiB, which is compared when a block is first read.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, final

import numpy as np

from unweave.errors import UserError
from unweave.formats.documents import Corpus, Stream, StreamedDocuments, split_stream
from unweave.formats.files import atomic_file
from unweave.types import Document

_MAGIC = b"unwvtok1"
_PRELUDE = struct.Struct("<8sQQ32s8x")
"""Magic, where the header begins, its length, its SHA-256."""
_BLOCK = 4 * 2**20


def write_token_file(
    path: Path,
    documents: Iterable[Document],
    tokenizer: Any,
    *,
    held_out: Iterable[Document] = (),
    sources: Sequence[str] = (),
    max_tokens: int | None = None,
) -> int:
    """Write documents that have their tokens (``unweave.models.tokens.tokenised``); returns the number of tokens.

    ``tokenizer``: the one that made the tokens. ``held_out``: documents that are only measured on; where there are
    none, a reader splits by names. ``sources``: what the documents were read from. ``max_tokens``: each part ends with
    the document that reaches it. The file appears under its name when all of it is on disk.
    """
    with atomic_file(path) as file:
        writer = _Writer(file, np.dtype("<u2" if len(tokenizer) <= 2**16 else "<u4"))
        writer.add(documents, max_tokens)
        n_train = len(writer.names)
        writer.add(held_out, max_tokens)
        if len(writer.names) < 2:
            raise UserError(f"a file of tokens needs at least two documents, got {len(writer.names)}")
        has_split = n_train < len(writer.names)
        writer.finish(
            {
                "tokenizer_sha256": tokenizer_sha256(tokenizer),
                "sources": list(sources),
                "n_train": n_train if has_split else None,
            }
        )
    return writer.starts[-1]


def read_token_file(source: str, held_out: float, tokenizer: Any = None) -> Corpus:
    """The documents of ``tokens:<path>``, split as they were when written, or by their names.

    Raises ``UserError`` where the file is damaged or was written with another tokenizer.
    """
    path = Path(source.removeprefix("tokens:")).expanduser()
    if not path.is_file():
        raise UserError(f"there is no file {str(path)!r} for text {source!r}; write it first")
    tokens = _TokenFile(path)
    written_with = tokens.header["tokenizer_sha256"]
    if tokenizer is not None and tokenizer_sha256(tokenizer) != written_with:
        raise UserError(
            f"the tokens of {str(path)!r} were made by another tokenizer than the model's; write them again"
        )
    stream = Stream(source, tokens.read, tokens.names.__getitem__, len(tokens.names), tokens.sha256)
    n_train = tokens.header["n_train"]
    if n_train is None:
        return split_stream(stream, held_out)
    if held_out != 0.1:
        raise UserError(f"text.held_out has no effect on {source!r}, which was split when it was written; remove it")
    return Corpus(StreamedDocuments(stream, lambda n: n < n_train), StreamedDocuments(stream, lambda n: n >= n_train))


def tokenizer_sha256(tokenizer: Any) -> str:
    """Checksum of what decides a text's tokens: vocabulary, merges, normalisation, special tokens."""
    if getattr(tokenizer, "is_fast", False):
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        rules.pop("truncation", None)  # these two change with every call of the tokenizer
        rules.pop("padding", None)
    else:
        rules = {"vocabulary": tokenizer.get_vocab(), "special": list(map(str, tokenizer.all_special_tokens))}
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()


@final
class _Writer:
    """Appends documents to an open file and remembers where they begin."""

    def __init__(self, file: BinaryIO, dtype: np.dtype) -> None:
        self.file = file
        self.dtype = dtype
        self.names: list[str] = []
        self.starts = [0]
        self._sums: list[int] = []
        self._block = bytearray()
        file.write(bytes(_PRELUDE.size))

    def add(self, documents: Iterable[Document], max_tokens: int | None) -> None:
        first = self.starts[-1]
        for document in documents:
            if document.token_ids is None:
                raise UserError(f"document {document.name!r} has no tokens; pass tokenised(documents, tokenizer)")
            ids = np.asarray(document.token_ids)
            if len(ids) and not 0 <= ids.min() <= ids.max() <= np.iinfo(self.dtype).max:
                raise UserError(f"document {document.name!r} has the token {ids.max()}, which the tokenizer lacks")
            self._write(ids.astype(self.dtype).tobytes())
            self.names.append(document.name.replace("\n", " "))
            self.starts.append(self.starts[-1] + len(ids))
            if max_tokens is not None and self.starts[-1] - first >= max_tokens:
                return

    def finish(self, facts: dict[str, Any]) -> None:
        if self._block:
            self._sums.append(zlib.crc32(self._block))
        directory = np.array(self.starts, dtype="<u8").tobytes() + "".join(f"{name}\n" for name in self.names).encode()
        self.file.write(directory)
        facts |= {
            "format": 1,
            "dtype": self.dtype.str,
            "n_documents": len(self.names),
            "n_tokens": self.starts[-1],
            "directory_bytes": len(directory),
            "directory_sha256": hashlib.sha256(directory).hexdigest(),
            "block_bytes": _BLOCK,
            "block_crc32": self._sums,
        }
        header = json.dumps(facts).encode()
        at = self.file.tell()
        self.file.write(header)
        self.file.seek(0)
        self.file.write(_PRELUDE.pack(_MAGIC, at, len(header), hashlib.sha256(header).digest()))

    def _write(self, data: bytes) -> None:
        self.file.write(data)
        self._block += data
        while len(self._block) >= _BLOCK:
            self._sums.append(zlib.crc32(self._block[:_BLOCK]))
            del self._block[:_BLOCK]


@final
class _TokenFile:
    """A file of tokens that is mapped into memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            prelude = file.read(_PRELUDE.size)
            if len(prelude) < _PRELUDE.size or not prelude.startswith(_MAGIC):
                raise UserError(f"{str(path)!r} is no file of tokens; write it again from the text")
            _, at, length, digest = _PRELUDE.unpack(prelude)
            file.seek(at)
            header = file.read(length)
            if hashlib.sha256(header).digest() != digest:
                raise self._damaged("its header")
            self.header: dict[str, Any] = json.loads(header)
            file.seek(at - self.header["directory_bytes"])
            directory = file.read(self.header["directory_bytes"])
        if hashlib.sha256(directory).hexdigest() != self.header["directory_sha256"]:
            raise self._damaged("its list of documents")
        self.sha256 = digest.hex()
        n_starts = 8 * (self.header["n_documents"] + 1)
        self.starts = np.frombuffer(directory[:n_starts], dtype="<u8").astype(np.int64)
        self.names = directory[n_starts:].decode().split("\n")[:-1]
        n_bytes = self.header["n_tokens"] * np.dtype(self.header["dtype"]).itemsize
        # an empty file cannot be mapped
        self._bytes = np.memmap(path, np.uint8, "r", _PRELUDE.size, (n_bytes,)) if n_bytes else np.empty(0, np.uint8)
        self._sound = np.zeros(len(self.header["block_crc32"]), dtype=bool)

    def read(self, start: int) -> Iterator[Document]:
        for number in range(start, len(self.names)):
            first, end = self.starts[number : number + 2]
            yield Document(self.names[number], "", token_ids=self._tokens(int(first), int(end)))

    def _tokens(self, first: int, end: int) -> np.ndarray:
        dtype, size = np.dtype(self.header["dtype"]), self.header["block_bytes"]
        start, stop = first * dtype.itemsize, end * dtype.itemsize
        for block in range(start // size, -(-stop // size)):
            if not self._sound[block]:
                data = self._bytes[block * size : (block + 1) * size].tobytes()
                if zlib.crc32(data) != self.header["block_crc32"][block]:
                    raise self._damaged(f"its text from byte {block * size + _PRELUDE.size}")
                self._sound[block] = True
        return self._bytes[start:stop].view(dtype)

    def _damaged(self, part: str) -> UserError:
        return UserError(f"{str(self.path)!r} is damaged: {part} is not what was written; write it again from the text")
