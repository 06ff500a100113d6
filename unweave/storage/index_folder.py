"""The latent index of a run: a folder with all fires of all latents, the text they are in, and what follows from them.

``manifest.json`` names the coder and the checksum of every file; the folder has its name only when it is whole.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from unweave.analysis.fires import QUANTILES, IndexedText
from unweave.errors import UserError
from unweave.formats.files import file_sha256, write_atomically
from unweave.latent_record import (
    Example,
    ExampleGroup,
    Histogram,
    LatentRecord,
    NeuronWeight,
    Partner,
    Similar,
    Telling,
    TokenCount,
    TokenRule,
    TokenWeight,
)
from unweave.storage.fire_columns import FILES, FireColumns
from unweave.storage.latent_table import LatentTable, TableQuery, TableRow

FORMAT = 1
FOLDER = "index"
"""Its name in the folder of its run."""
PARTIAL = "index.partial"
"""Its name until it is whole."""
MANIFEST = "manifest.json"
TABLE = "latents.sqlite"
TEXT_FILES = ("token_ids", "document_ids", "is_row")
_ANEW = "`unweave index` on the run makes it anew"


class LatentIndex:
    """Reads an index: ``index[123]`` is the record of a latent."""

    def __init__(self, folder: Path, *, reach: int = 12) -> None:
        """``reach``: tokens shown to each side of an example's peak.

        Raises ``UserError`` where there is no whole index.
        """
        self.folder, self.reach = folder, reach
        self.manifest = _read_manifest(folder)
        for name, facts in self.manifest["files"].items():
            size = (folder / name).stat().st_size if (folder / name).is_file() else -1
            if size != facts["bytes"]:
                came = "is missing" if size < 0 else f"has {size:,} bytes, not {facts['bytes']:,}"
                raise UserError(f"{str(folder / name)!r} {came}; {_ANEW}")
        self.table = LatentTable(folder / TABLE)

    def __len__(self) -> int:
        return int(self.manifest["n_latents"])

    def __getitem__(self, latent: int) -> LatentRecord:
        return self.record(latent)

    def __iter__(self) -> Iterator[LatentRecord]:
        return (self._record(latent, sheet, self.reach) for latent, sheet in enumerate(self.table.sheets()))

    def record(self, latent: int, *, reach: int | None = None) -> LatentRecord:
        """One latent, with so many tokens to each side of an example's peak."""
        return self._record(latent, self.table.sheet(latent), self.reach if reach is None else reach)

    def rows(self, query: TableQuery) -> tuple[list[TableRow], int]:
        """A page of the table of latents, and how many there are in all."""
        return self.table.rows(query)

    def fires(self, latent: int) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, " N"]]:
        """Every place at which a latent fires, in order, and how strongly."""
        return self._columns[latent]

    @cached_property
    def text(self) -> IndexedText:
        """The sequences that were read."""
        return IndexedText(*(_load(self.folder / f"{name}.npy") for name in TEXT_FILES))

    def vocabulary(self) -> list[str]:
        """Text of each token id."""
        return self._vocabulary

    def verify(self) -> None:
        """Raise ``UserError`` where a file is not the one that was written."""
        for name, facts in self.manifest["files"].items():
            if file_sha256(self.folder / name) != facts["sha256"]:
                raise UserError(f"{str(self.folder / name)!r} is damaged: its checksum differs; {_ANEW}")

    @cached_property
    def _columns(self) -> FireColumns:
        return FireColumns(self.folder)

    @cached_property
    def _vocabulary(self) -> list[str]:
        return self.table.vocabulary()

    @cached_property
    def _documents(self) -> list[str]:
        return self.table.documents()

    def _record(self, latent: int, sheet: Mapping[str, Any], reach: int) -> LatentRecord:
        places, values = self._columns[latent]

        def examples(chosen: Sequence[int]) -> list[Example]:
            return [self._example(place, places, values, reach) for place in chosen]

        return LatentRecord(
            latent=latent,
            density=sheet["density"],
            n_fires=sheet["n_fires"],
            max_activation=sheet["max"],
            mean_activation=sheet["mean"],
            examples=examples(sheet["top"]),
            promoted=[TokenWeight(*pair) for pair in sheet["promoted"]],
            suppressed=[TokenWeight(*pair) for pair in sheet["suppressed"]],
            groups=[ExampleGroup(low, high, share, examples(drawn)) for low, high, share, drawn in sheet["groups"]],
            quantiles=list(zip(QUANTILES, sheet["quantiles"], strict=False)),
            histogram=Histogram(*sheet["histogram"]) if sheet["histogram"] else None,
            logits=Histogram(*sheet["logits"]) if sheet["logits"] else None,
            partners=[Partner(*partner) for partner in sheet["partners"]],
            similar=[Similar(*pair) for pair in sheet["similar"]],
            neurons=[NeuronWeight(*neuron) for neuron in sheet["neurons"]],
            telling={name: _telling(told) for name, told in sheet["telling"].items()},
            rule=TokenRule(*sheet["rule"]) if sheet["rule"] else None,
        )

    def _example(self, place: int, places: np.ndarray, values: np.ndarray, reach: int) -> Example:
        context = self.text.context
        start = max(place - reach, place - place % context)
        end = min(place + reach + 1, place - place % context + context)
        tokens = self.text.token_ids.reshape(-1)[start:end]
        activations = np.zeros(end - start)
        first, last = np.searchsorted(places, (start, end))
        activations[places[first:last] - start] = values[first:last]
        return Example(
            token_ids=tokens.tolist(),
            activations=[float(f"{a:.5g}") if a else 0.0 for a in activations.tolist()],
            peak=place - start,
            document=self._documents[int(self.text.document_ids.reshape(-1)[place])],
            place=place,
        )


def write_text(folder: Path, text: IndexedText) -> None:
    """Write the sequences that an index is of."""
    width = np.uint16 if text.token_ids.max(initial=0) < 2**16 else np.uint32
    np.save(folder / "token_ids.npy", text.token_ids.astype(width))
    np.save(folder / "document_ids.npy", text.document_ids.astype(np.int32))
    np.save(folder / "is_row.npy", text.is_row)


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Say what the files of an index are; the last to be written."""
    names = [f"{name}.npy" for name in (*TEXT_FILES, *FILES)] + [TABLE]
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)} for name in names}
    write_atomically(folder / MANIFEST, json.dumps({"format": FORMAT, **facts, "files": files}, indent=2) + "\n")


def _telling(told: Sequence[Any]) -> Telling:
    share, entropy, top = told
    return Telling(share, entropy, [TokenCount(tokens, count) for tokens, count in top])


def _load(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"there is no latent index {str(folder)!r}; `unweave index` on the run makes it")
    try:
        manifest = json.loads(path.read_text())
        found = manifest["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{str(path)!r} is damaged; {_ANEW}") from error
    if found != FORMAT:
        raise UserError(f"{str(path)!r} has format {found}, this version reads {FORMAT}; {_ANEW}")
    return manifest
