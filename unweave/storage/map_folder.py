"""What a map of latents is drawn from, kept in ``map/`` of a run: places and clusters that took long to find.

One ``.npy`` file for each, by a name that says how it was made, and the checksum of the coder that all of them are of.
Whatever is missing, damaged or of another coder is made anew: nothing here is worth more than the time it took.
"""

import io
import shutil
from pathlib import Path

import numpy as np

from unweave.formats.files import write_atomically

FOLDER = "map"
_CODER = "coder.sha256"


class MapFolder:
    """Reads and writes the map of one run's coder."""

    def __init__(self, run: Path, coder: str, n_latents: int) -> None:
        """``coder``: checksum of the weights."""
        self.folder, self.coder, self.n_latents = run / FOLDER, coder, n_latents

    def read(self, name: str) -> np.ndarray | None:
        """An array with a row for each latent, or None where there is none of this coder."""
        if not self._is_current():
            return None
        try:
            found = np.load(self.folder / f"{name}.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return found if len(found) == self.n_latents and np.isfinite(found).all() else None

    def write(self, name: str, values: np.ndarray) -> None:
        """Keep an array; those of another coder go."""
        if not self._is_current():
            shutil.rmtree(self.folder, ignore_errors=True)
            write_atomically(self.folder / _CODER, self.coder + "\n")
        buffer = io.BytesIO()
        np.save(buffer, values, allow_pickle=False)
        write_atomically(self.folder / f"{name}.npy", buffer.getvalue())

    def _is_current(self) -> bool:
        try:
            return (self.folder / _CODER).read_text().strip() == self.coder
        except (OSError, UnicodeDecodeError):
            return False
