"""Read activations that lie in shards, in the order in which they were harvested, while the next ones are loaded.

Positions in a cache are written as those in a text: ``document`` is the shard, counted from the start of the reading,
also over its repetitions, and ``token`` is a row of that shard with which a token batch begins.
"""

from collections.abc import Generator, Iterable, Sequence
from itertools import accumulate, count
from pathlib import Path
from typing import final

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from unweave.activations.ahead import ahead
from unweave.activations.quantize import StoredRows, restore
from unweave.activations.shard_files import MANIFEST, Manifest, ShardFolder, check_size, damaged, read_manifest
from unweave.activations.shard_writer import ROW_FACTS
from unweave.errors import UserError, nearest
from unweave.formats.files import sha256
from unweave.types import Part, Rows, TextPosition

START = TextPosition()
"""The first row of a cache."""
EVERYTHING = Part()
_AHEAD = 4
"""Token batches that are read before they are asked for."""


@final
class Shards:
    """The finished shards of a cache, at a local path or an fsspec address."""

    def __init__(self, address: str | Path, *, verify: bool = True) -> None:
        """``verify``: compare the checksum of each shard when it is first read."""
        self._folder = ShardFolder(address)
        manifest = read_manifest(self._folder)
        if manifest is None:
            raise UserError(
                f"there are no activations in {str(address)!r} (no {MANIFEST}); `unweave harvest` makes them"
            )
        self.manifest: Manifest = manifest
        self._unverified = set(range(len(manifest.shards))) if verify else set()

    def __repr__(self) -> str:
        return f"Shards({self._folder.address!r}, {self.n_rows:,} rows at {', '.join(self.sites)})"

    @property
    def n_rows(self) -> int:
        return self.manifest.rows

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.manifest.sites)

    @property
    def sha256(self) -> str:
        """Checksum of all rows: it tells whether a cache is the one that a run began with."""
        return sha256("".join(shard.sha256 for shard in self.manifest.shards).encode())

    def describe(self) -> str:
        """What is in the cache, in a line, and a line for each site."""
        manifest = self.manifest
        count = "1 shard" if len(manifest.shards) == 1 else f"{len(manifest.shards):,} shards"
        lines = [f"{self._folder.address}: {self.n_rows:,} rows in {count}, {manifest.bytes / 1e6:,.1f} MB"]
        for site, lost in manifest.variance_lost.items():
            lines.append(f"{site}: {manifest.sites[site]} wide, {manifest.dtype} loses {lost:.2g} of the variance")
        return "\n".join(lines)

    def rows(self, sites: Sequence[str] = (), start: TextPosition = START) -> Generator[Rows, None, None]:
        """Token batch after token batch as float32 rows at ``sites``, by default all; a thread reads ahead.

        ``start`` is the ``after`` of the last batch that was had. Raises ``UserError`` for a site or a start that the
        cache does not have, and, while reading, for a shard that is not what was written.
        """
        numbers = range(start.document, len(self.manifest.shards))
        return ahead(self._read(self._known(sites), numbers, start), _AHEAD)

    def rows_forever(
        self,
        sites: Sequence[str] = (),
        start: TextPosition = START,
        part: Part = EVERYTHING,
    ) -> Generator[Rows, None, None]:
        """The same, without end: the cache is read again from its first shard.

        Of a ``part`` of the cache: its shards, by which the position counts too; raises ``UserError`` for too few.
        """
        if len(self.manifest.shards) < part.of:
            raise UserError(
                f"{self._folder.address!r} has {len(self.manifest.shards)} shards, too few for {part.of} processes; "
                "harvest it with a smaller --shard-rows"
            )
        if not self.n_rows:
            raise UserError(f"{self._folder.address!r} holds no rows yet; run `unweave harvest` again to go on with it")
        return ahead(self._read(self._known(sites), count(start.document), start, part), _AHEAD)

    def _known(self, sites: Sequence[str]) -> list[str]:
        for site in sites:
            if site not in self.manifest.sites:
                raise UserError(
                    f"{self._folder.address!r} holds no activations at {site!r}{nearest(site, self.sites)}; "
                    f"it has {', '.join(self.sites)}"
                )
        return list(sites) or list(self.sites)

    def _read(
        self, sites: list[str], numbers: Iterable[int], start: TextPosition, part: Part = EVERYTHING
    ) -> Generator[Rows, None, None]:
        n_shards = len(self.manifest.shards)
        for number in numbers:
            tensors = self._load((number * part.of + part.number) % n_shards)
            ends = list(accumulate(tensors["batch_rows"].tolist()))
            first = start.token if number == start.document else 0
            if first not in (0, *ends):
                raise UserError(f"no token batch of shard {number} begins at row {first}; the cache is another one")
            for begin, end in zip((0, *ends), ends, strict=False):
                if begin >= first:
                    after = TextPosition(number + 1) if end == ends[-1] else TextPosition(number, end)
                    yield _cut(tensors, sites, slice(begin, end), after)

    def _load(self, number: int) -> dict[str, Tensor]:
        shard = self.manifest.shards[number]
        try:
            data = self._folder.read(shard.file)
        except FileNotFoundError:
            data = None
        check_size(self._folder, shard, None if data is None else len(data))
        assert data is not None
        if number in self._unverified:
            if sha256(data) != shard.sha256:
                raise damaged(self._folder, shard, "was altered: its checksum is not that of the manifest")
            self._unverified.discard(number)
        try:
            return safetensors.torch.load(data)
        except SafetensorError as error:
            raise damaged(self._folder, shard, f"cannot be read ({error})") from error


def _cut(tensors: dict[str, Tensor], sites: list[str], rows: slice, after: TextPosition) -> Rows:
    activations = {}
    for site in sites:
        activations[site] = restore(StoredRows(tensors[f"x.{site}"], tensors.get(f"scale.{site}")).part(rows))
    return Rows(activations, *(tensors[name][rows].long() for name in ROW_FACTS), after=after)
