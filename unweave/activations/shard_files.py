"""A folder of shards at a local path or at any address that fsspec knows, and the manifest that lists them.

A shard is on disk before the manifest names it, and its name holds a part of its checksum. So a reader who follows the
manifest finds whole files only, and a name never comes to stand for other content.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from unweave.activations.quantize import Lost, StoredDtype, check_stored_dtype
from unweave.errors import UserError
from unweave.formats.files import write_atomically
from unweave.types import TextPosition

FORMAT = 1
MANIFEST = "manifest.json"
_OURS = ("shard-", ".shard-", f".{MANIFEST}.")
"""Beginnings of the names of shards, and of the temporary files that a killed process leaves."""


class ShardFolder:
    """Files at an address, each written whole or not at all."""

    def __init__(self, address: str | Path) -> None:
        """``address``: a local path, or one with a protocol such as ``memory://`` or ``s3://``."""
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        self.address = str(address)
        try:
            self._files, self._root = url_to_fs(self.address)
        except (ValueError, ImportError) as error:
            raise UserError(f"cannot open {self.address!r}: {error}; give a folder or an fsspec address") from error
        self._is_local = isinstance(self._files, LocalFileSystem)

    def sizes(self) -> dict[str, int]:
        """Name and bytes of every file; empty where there is no such folder."""
        self._files.invalidate_cache()
        try:
            found = self._files.ls(self._root, detail=True)
        except FileNotFoundError:
            return {}
        except NotADirectoryError as error:
            raise UserError(f"{self.address!r} is a file; give a folder for activations") from error
        return {Path(str(file["name"])).name: file["size"] or 0 for file in found}

    def read(self, name: str) -> bytes:
        """A whole file; raises ``FileNotFoundError``."""
        return self._files.cat_file(self._path(name))

    def write(self, name: str, data: bytes) -> None:
        """Write a file that has its name only once it is complete, and is then on disk."""
        if self._is_local:
            write_atomically(Path(self._path(name)), data)
        else:  # object stores show a file when its upload is complete
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(self._path(name), data)

    def remove_all_but(self, kept: set[str]) -> None:
        """Remove shards and temporary files of a harvest that was killed."""
        for name in self.sizes():
            if name.startswith(_OURS) and name not in kept:
                self._files.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One shard in the manifest."""

    file: str
    rows: int
    bytes: int
    sha256: str
    after: TextPosition
    """Where reading the text goes on behind its rows."""
    lost: dict[str, Lost]
    """What storing lost at each site."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What lies in a folder of shards, and what it was made from."""

    origin: dict[str, dict[str, Any]]
    """Sections ``model``, ``tokenizer``, ``text`` and ``packing``: names, checksums and settings."""
    sites: dict[str, int]
    """Name and width of each site."""
    dtype: StoredDtype
    made_with: dict[str, str]
    """Versions and device; they may change while a cache grows."""
    shards: tuple[ShardEntry, ...] = ()

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)

    @property
    def after(self) -> TextPosition:
        """Where reading the text goes on behind all rows."""
        return self.shards[-1].after if self.shards else TextPosition()

    @property
    def variance_lost(self) -> dict[str, float]:
        """Share of each site's variance that storing lost."""
        parts = {site: [shard.lost[site] for shard in self.shards] for site in self.sites}
        return {site: Lost(*map(sum, zip(*lost, strict=True))).share if lost else 0.0 for site, lost in parts.items()}

    def with_shard(self, shard: ShardEntry) -> "Manifest":
        return replace(self, shards=(*self.shards, shard))

    def to_json(self) -> str:
        values = asdict(self)
        values["shards"] = [asdict(s) | {"lost": {k: v._asdict() for k, v in s.lost.items()}} for s in self.shards]
        totals = {"rows": self.rows, "bytes": self.bytes, "variance_lost": self.variance_lost}
        return json.dumps({"format": FORMAT, **totals, **values}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def damaged(folder: ShardFolder, shard: ShardEntry, what: str) -> UserError:
    """The error for a shard that is not what was written."""
    return UserError(f"shard {shard.file} of {folder.address!r} {what}; copy it again, or harvest into a new folder")


def check_sizes(folder: ShardFolder, manifest: Manifest) -> None:
    """Raise ``UserError`` for a shard that is missing or has another length than was written."""
    sizes = folder.sizes()
    for shard in manifest.shards:
        check_size(folder, shard, sizes.get(shard.file))


def check_size(folder: ShardFolder, shard: ShardEntry, size: int | None) -> None:
    """The same for one shard of ``size`` bytes, None where there is no such file."""
    if size is None:
        raise damaged(folder, shard, "is missing")
    if size != shard.bytes:
        raise damaged(folder, shard, f"has {size:,} bytes where {shard.bytes:,} were written")


def read_manifest(folder: ShardFolder) -> Manifest | None:
    """The manifest of a folder, or None where there is none; raises ``UserError`` where it cannot be read."""
    try:
        data = folder.read(MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        values = json.loads(data)
        version = values["format"]
        if version == FORMAT:
            return _manifest(values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the {MANIFEST} of {folder.address!r} is damaged; harvest into a new folder") from error
    raise UserError(f"{folder.address!r} has format {version}, this version reads {FORMAT}; harvest it again")


def _manifest(values: dict[str, Any]) -> Manifest:
    shards = tuple(
        ShardEntry(
            file=str(entry["file"]),
            rows=int(entry["rows"]),
            bytes=int(entry["bytes"]),
            sha256=str(entry["sha256"]),
            after=TextPosition(*map(int, entry["after"])),
            lost={site: Lost(**entry["lost"][site]) for site in values["sites"]},
        )
        for entry in values["shards"]
    )
    return Manifest(
        origin={name: dict(section) for name, section in values["origin"].items()},
        sites={str(site): int(width) for site, width in values["sites"].items()},
        dtype=check_stored_dtype(values["dtype"]),
        made_with=dict(values["made_with"]),
        shards=shards,
    )
