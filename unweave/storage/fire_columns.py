"""All fires of all latents on disk, latent by latent, mapped into memory: any latent is read without the others.

A fire takes four bytes. ``places.npy`` has the low 16 bits of its place; the rest follows from ``blocks.npy``, how many
fires each latent has in every stretch of 65,536 places. ``values.npy`` has the activation in 32,767ths of the latent's
largest, ``scales.npy``, so it is rounded by at most 1 / 65,534 of that.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from unweave.analysis.fires import Fires

_STRETCH = 2**16
_STEPS = 32_767
FILES = ("offsets", "blocks", "scales", "places", "values")


class ColumnsWriter:
    """Writes the fires of all latents, in the order of the latents."""

    def __init__(self, folder: Path, counts: Int[np.ndarray, " L"], n_places: int) -> None:
        """``counts``: how often each latent fires in the text of so many places."""
        n_stretches = max(1, -(-n_places // _STRETCH))
        offsets = np.concatenate([[0], counts.cumsum()])
        np.save(folder / "offsets.npy", offsets.astype(np.int64))
        self._blocks = _new(folder / "blocks.npy", np.uint32, (len(counts), n_stretches))
        self._scales = _new(folder / "scales.npy", np.float32, (len(counts),))
        self._places = _new(folder / "places.npy", np.uint16, (int(offsets[-1]),))
        self._values = _new(folder / "values.npy", np.int16, (int(offsets[-1]),))
        self._n_written = 0

    def write(self, fires: Fires) -> None:
        """Add the fires of the next latents."""
        own = slice(self._n_written, self._n_written + len(fires.places))
        owners = np.repeat(np.arange(len(fires)), fires.counts)
        latents = slice(fires.first, fires.first + len(fires))
        n_stretches = self._blocks.shape[1]
        cells = np.bincount(owners * n_stretches + fires.places // _STRETCH, minlength=len(fires) * n_stretches)
        self._blocks[latents] = cells.reshape(len(fires), n_stretches)
        scales = np.zeros(len(fires), dtype=np.float32)
        np.maximum.at(scales, owners, np.abs(fires.values))
        self._scales[latents] = scales
        self._places[own] = fires.places % _STRETCH
        rounded = np.rint(fires.values / scales[owners] * _STEPS)
        # what fires is not 0, however weak it is
        self._values[own] = np.where(rounded == 0, np.sign(fires.values), rounded)
        self._n_written = own.stop

    def close(self) -> None:
        """Flush to disk."""
        assert self._n_written == len(self._places), "every latent is written once"
        for array in (self._blocks, self._scales, self._places, self._values):
            if isinstance(array, np.memmap):
                array.flush()


class FireColumns:
    """Reads what ``ColumnsWriter`` wrote."""

    def __init__(self, folder: Path) -> None:
        arrays = (np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in FILES)
        self._offsets, self._blocks, self._scales, self._places, self._values = arrays

    @property
    def n_latents(self) -> int:
        return len(self._scales)

    def counts(self) -> Int[np.ndarray, " L"]:
        """How often each latent fires."""
        return np.diff(self._offsets)

    def __getitem__(self, latent: int) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, " N"]]:
        """The places at which a latent fires, in order, and how strongly."""
        own = slice(self._offsets[latent], self._offsets[latent + 1])
        stretches = np.repeat(np.arange(self._blocks.shape[1]), self._blocks[latent])
        values = self._values[own].astype(np.float32) * (self._scales[latent] / _STEPS)
        return stretches * _STRETCH + self._places[own], values


def _new(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """An array in a file; one without elements cannot be mapped."""
    if 0 in shape:
        array = np.zeros(shape, dtype=dtype)
        np.save(path, array)
        return array
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
