"""Write rows into shards, each a safetensors file of whole token batches, and list them in the manifest.

A shard holds, per site s, ``x.<s>`` [n, D] and, for int8, ``scale.<s>`` [n]; ``token_ids``, ``document_ids``,
``sequences`` and ``positions`` [n], as int32 where they fit; and ``batch_rows``, the rows of each token batch
that has any.
"""

import math

import safetensors.torch
import torch
from torch import Tensor

from unweave.activations.quantize import LostInStoring, StoredRows, store
from unweave.activations.shard_files import MANIFEST, Manifest, ShardEntry, ShardFolder
from unweave.errors import UserError
from unweave.formats.files import sha256
from unweave.types import Rows, TextPosition

ROW_FACTS = ("token_ids", "document_ids", "sequences", "positions")
_INT32_MAX = torch.iinfo(torch.int32).max


class ShardWriter:
    """Collects token batches and writes a shard when they have enough rows."""

    def __init__(self, folder: ShardFolder, manifest: Manifest, shard_rows: int) -> None:
        """Write ``manifest``, the folder's own or that of a new cache, and remove what a killed harvest left."""
        if shard_rows < 1:
            raise UserError(f"a shard has at least 1 row, got shard_rows={shard_rows}")
        self.manifest = manifest
        """What is in the folder now."""
        self._folder = folder
        self._shard_rows = shard_rows
        self._collected = _Collected(manifest)
        self._written = manifest.to_json().encode()
        self._write(MANIFEST, self._written)
        folder.remove_all_but({shard.file for shard in manifest.shards})

    @property
    def n_rows(self) -> int:
        """Rows in finished shards and in the one that is being collected."""
        return self.manifest.rows + self._collected.n_rows

    def add(self, rows: Rows) -> None:
        """Add one token batch; the shard is written once it is long enough."""
        self._collected.add(rows)
        if self._collected.n_rows >= self._shard_rows:
            self.finish_shard()

    def finish_shard(self) -> None:
        """Write the rows collected since the last shard, if there are any.

        Raises ``UserError`` where rows are not finite, where there is no room, and where something else writes to the
        same folder; the shards before are as they were.
        """
        collected = self._collected
        if not collected.n_rows:
            return
        lost = {site: lost.compute() for site, lost in collected.lost.items()}
        if broken := [site for site, (_, spread) in lost.items() if not math.isfinite(spread)]:
            raise UserError(f"activations at {broken[0]} are NaN or infinite; check the model, or try model.dtype")
        data = safetensors.torch.save(collected.tensors())
        checksum = sha256(data)
        shard = ShardEntry(
            file=f"shard-{len(self.manifest.shards):06d}-{checksum[:8]}.safetensors",
            rows=collected.n_rows,
            bytes=len(data),
            sha256=checksum,
            after=collected.after,
            lost=lost,
        )
        self._write(shard.file, data)
        self._list(shard)
        self._collected = _Collected(self.manifest)

    def _list(self, shard: ShardEntry) -> None:
        if self._folder.read(MANIFEST) != self._written:
            raise UserError(f"something else writes to {self._folder.address!r}; end it, or choose another --out")
        manifest = self.manifest.with_shard(shard)
        written = manifest.to_json().encode()
        self._write(MANIFEST, written)
        self.manifest, self._written = manifest, written

    def _write(self, name: str, data: bytes) -> None:
        try:
            self._folder.write(name, data)
        except OSError as error:
            raise UserError(
                f"cannot write {name} to {self._folder.address!r}: {error.strerror or error}; "
                f"{self.manifest.rows:,} rows are in complete shards, the same command goes on behind them"
            ) from error


class _Collected:
    """Token batches of a shard that is not written yet, on the CPU."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._x: dict[str, list[StoredRows]] = {site: [] for site in manifest.sites}
        self._facts: dict[str, list[Tensor]] = {name: [] for name in ROW_FACTS}
        self._batch_rows: list[int] = []
        self.lost = {site: LostInStoring() for site in manifest.sites}
        self.after = TextPosition()
        self.n_rows = 0

    def add(self, rows: Rows) -> None:
        assert rows.after is not None, "rows of a text say where reading goes on"
        for site, kept in self._x.items():
            x_BD = rows.activations[site]
            stored = store(x_BD, self._manifest.dtype)
            self.lost[site].update(x_BD, stored)
            kept.append(StoredRows(stored.x.cpu(), None if stored.scale is None else stored.scale.cpu()))
        for name, facts in self._facts.items():
            facts.append(getattr(rows, name).cpu())
        if len(rows):
            self._batch_rows.append(len(rows))
        self.after = rows.after
        self.n_rows += len(rows)

    def tensors(self) -> dict[str, Tensor]:
        tensors = {name: _short(torch.cat(facts)) for name, facts in self._facts.items()}
        tensors["batch_rows"] = torch.tensor(self._batch_rows, dtype=torch.int32)
        for site, kept in self._x.items():
            tensors[f"x.{site}"] = torch.cat([stored.x for stored in kept])
            scales = [stored.scale for stored in kept if stored.scale is not None]
            if scales:
                tensors[f"scale.{site}"] = torch.cat(scales)
        return tensors


def _short(ids: Tensor) -> Tensor:
    return ids.int() if ids.numel() == 0 or int(ids.max()) <= _INT32_MAX else ids
