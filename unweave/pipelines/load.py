"""Load a trained coder by the path of its run or of its own folder."""

from pathlib import Path

from unweave.coders import SparseCoder
from unweave.formats.native import read_coder


def load(path: str | Path) -> SparseCoder:
    """The coder of a run folder, or of the coder folder within it, on the CPU and ready for use.

    ``coder.origin`` names the model and the site that it was trained on. Raises ``UserError`` where there is no coder
    or its weights are damaged.
    """
    folder = Path(path).expanduser()
    return read_coder(folder / "coder" if (folder / "coder").is_dir() else folder)
