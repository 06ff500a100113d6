"""Write a coder that was read from anywhere in another library's format, or in ours."""

from pathlib import Path

from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.formats.dictionaries import write_dictionary
from unweave.formats.native import write_coder

OURS = "unweave"
"""Name of our own format among the others."""


def convert(coders: dict[str, SparseCoder], out: Path, to: str = OURS) -> list[Path]:
    """Write coders to ``out``, each in a folder of its own where there are several; returns the folders.

    Raises ``UserError`` where the folder exists, or where the format cannot hold a coder exactly.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{str(out)!r} exists; give a new folder to write to")
    folders = {name: out / name if len(coders) > 1 else out for name in coders}
    for name, coder in coders.items():
        _write(coder, folders[name], to)
    return list(folders.values())


def _write(coder: SparseCoder, folder: Path, to: str) -> None:
    sites = [port.site for port in coder.wiring.reads + coder.wiring.writes]
    if not all(sites) or coder.origin is None or not coder.origin.model:
        missing = "site" if not all(sites) else "model"
        raise UserError(f"the files do not say which {missing} the coder belongs to; give --{missing}")
    if to == OURS:
        write_coder(folder, coder)
    else:
        write_dictionary(coder, folder, to)
