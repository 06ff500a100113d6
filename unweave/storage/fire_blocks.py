"""Codes of a text on disk while it is read: blocks of whole sequences, each sorted by latent and merged at the end.

Memory is that of one block, whatever the length of the text. A block is written at once and atomically, so a reading
that was cut short goes on behind its last whole block, and several processes can each read some of the blocks.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.numpy
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unweave.analysis.fires import Fires, IndexedText
from unweave.analysis.latent_facts import LatentsByPlace
from unweave.errors import UserError
from unweave.formats.files import write_atomically
from unweave.types import Codes, TokenBatch

_PLACES = 32_768
"""Tokens of a block, about."""
_AT_ONCE = 2**22
"""Fires that are merged at once; a latent with more is merged alone."""


def batches_per_block(context: int, sequences: int) -> int:
    """Token batches of so many sequences that make a block."""
    return max(1, _PLACES // (context * sequences))


class _Batch(NamedTuple):
    """What is kept of one token batch until its block is written."""

    tokens: TokenBatch
    places: Int[np.ndarray, " B"]
    """Places of its rows in the block."""
    codes: Codes


class FireBlocks:
    """Blocks in a folder: written in any order, by several processes if need be, and read in order when all are there.

    ``per_block``: token batches of a block.
    """

    def __init__(self, folder: Path, n_latents: int, per_block: int) -> None:
        self.folder, self.n_latents, self.per_block = folder, n_latents, per_block
        self._waiting: list[_Batch] = []

    def has(self, batch_number: int) -> bool:
        """Whether the block of this token batch is on disk."""
        return self._path(batch_number // self.per_block).is_file()

    def update(self, batch_number: int, batch: TokenBatch, places: Int[Tensor, " B"], codes: Codes) -> None:
        """Add the next token batch of a block, the first of which has a number that ``per_block`` divides.

        ``places``: those of the rows of ``codes`` in this batch.
        """
        before = sum(waiting.tokens.token_ids.numel() for waiting in self._waiting)
        own = places.cpu().numpy() + before
        codes = Codes(codes.values.float().cpu(), codes.latent_ids.cpu(), codes.row_offsets.cpu(), codes.n_latents)
        self._waiting.append(_Batch(batch, own, codes.where(codes.values != 0)))
        if (batch_number + 1) % self.per_block == 0:
            self._write(batch_number // self.per_block)

    def end(self, n_batches: int) -> None:
        """Write the last block, which may be short."""
        if self._waiting:
            self._write((n_batches - 1) // self.per_block)

    def clear(self) -> None:
        for path in self._paths():
            path.unlink()

    def text(self) -> IndexedText:
        """All sequences in order."""
        parts = [[file.get_tensor(name) for name in ("tokens", "documents", "is_row")] for file in self._files()]
        return IndexedText(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def counts(self) -> Int[np.ndarray, " L"]:
        """How often each latent fires."""
        counts = np.zeros(self.n_latents, dtype=np.int64)
        for file in self._files():
            counts += np.diff(file.get_tensor("offsets"))
        return counts

    def fires(self, counts: Int[np.ndarray, " L"]) -> Iterator[Fires]:
        """The fires of all latents in order, a few million at a time; ``counts`` are those of ``counts()``."""
        files = self._files()
        starts = self._first_places(files)
        first = 0
        while first < self.n_latents:
            reach = int(np.searchsorted(counts[first:].cumsum(), _AT_ONCE, side="right"))
            last = min(self.n_latents, first + max(1, reach))
            yield _merged(first, last, files, starts)
            first = last

    def by_place(self, most: int = 2**26) -> LatentsByPlace:
        """The latents of each place; of a text with over ``most`` fires, those of every n-th block."""
        files = self._files()
        n_fires = np.array([file.get_slice("places").get_shape()[0] for file in files])
        step = next(n for n in range(1, len(files) + 1) if n_fires[::n].sum() <= most or n == len(files))
        ids = np.empty(n_fires[::step].sum(), dtype=np.uint16 if self.n_latents <= 2**16 else np.int32)
        per_place, counts, n_rows, start = [], np.zeros(self.n_latents, dtype=np.int64), 0, 0
        for number, file in enumerate(files):
            n_places = int(np.prod(file.get_slice("tokens").get_shape()))
            if number % step:
                per_place.append(np.zeros(n_places, dtype=np.int64))
                continue
            own, places = np.diff(file.get_tensor("offsets")), file.get_tensor("places")
            latents = np.repeat(np.arange(self.n_latents, dtype=ids.dtype), own)
            ids[start : start + len(places)] = latents[_order(places, n_places)]
            per_place.append(np.bincount(places, minlength=n_places))
            counts, start = counts + own, start + len(places)
            n_rows += int(file.get_tensor("is_row").sum())
        offsets = np.concatenate([np.zeros(1, np.int64), np.concatenate(per_place).cumsum()])
        return LatentsByPlace(offsets, ids, counts, n_rows)

    def _write(self, number: int) -> None:
        latents, places, values = [], [], []
        for batch in self._waiting:
            latents.append(batch.codes.latent_ids.numpy())
            places.append(batch.places[batch.codes.row_ids.numpy()])
            values.append(batch.codes.values.numpy())
        latents, places, values = (np.concatenate(parts) for parts in (latents, places, values))
        order = _order(latents, self.n_latents)
        offsets = np.concatenate([[0], np.bincount(latents, minlength=self.n_latents).cumsum()])
        tokens = np.concatenate([batch.tokens.token_ids.numpy() for batch in self._waiting])
        is_row = np.zeros(tokens.size, dtype=bool)
        is_row[np.concatenate([batch.places for batch in self._waiting])] = True
        tensors = {
            "tokens": tokens.astype(np.int32),
            "documents": np.concatenate([b.tokens.document_ids.numpy() for b in self._waiting]).astype(np.int32),
            "is_row": is_row.reshape(tokens.shape),
            "offsets": offsets.astype(np.int64),
            "places": places[order].astype(np.int32),
            "values": values[order].astype(np.float32),
        }
        write_atomically(self._path(number), safetensors.numpy.save(tensors))
        self._waiting = []

    def _path(self, number: int) -> Path:
        return self.folder / f"block-{number:06d}.safetensors"

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("block-*.safetensors"))

    def _files(self) -> list:
        files = []
        for path in self._paths():
            try:
                files.append(safe_open(path, "np"))
            except SafetensorError as error:
                raise UserError(f"{str(path)!r} is damaged; remove it, and index again to write it anew") from error
        return files

    def _first_places(self, files: Sequence) -> Int[np.ndarray, " N"]:
        sizes = [np.prod(file.get_slice("tokens").get_shape()) for file in files]
        return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)


def _order(numbers: Int[np.ndarray, " E"], n: int) -> Int[np.ndarray, " E"]:
    """Where the numbers under ``n`` are in rising order, equal ones as they come; NumPy sorts 16 bits by counting."""
    return np.argsort(numbers.astype(np.uint16) if n <= 2**16 else numbers, kind="stable")


def _merged(first: int, last: int, files: Sequence, starts: Int[np.ndarray, " N"]) -> Fires:
    """The fires of latents ``first`` to ``last`` of all blocks, latent by latent."""
    owners, places, values = [], [], []
    for file, start in zip(files, starts, strict=True):
        own = file.get_slice("offsets")[first : last + 1]
        part = slice(int(own[0]), int(own[-1]))
        owners.append(np.repeat(np.arange(last - first), np.diff(own)))
        places.append(file.get_slice("places")[part].astype(np.int64) + start)
        values.append(file.get_slice("values")[part])
    owners, places, values = (np.concatenate(parts) for parts in (owners, places, values))
    order = _order(owners, last - first)
    ends = np.concatenate([[0], np.bincount(owners, minlength=last - first).cumsum()])
    return Fires(first, ends.astype(np.int64), places[order], values[order])
