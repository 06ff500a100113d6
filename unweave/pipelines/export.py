"""Write latents for elsewhere: for Neuronpedia, as SAEDashboard's files, or as pages that open without a server.

Records are read and written one at a time, and a folder has its name only when all of it is there.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from unweave.errors import UserError
from unweave.formats.files import new_folder, write_atomically
from unweave.pipelines.export_dashboards import write_neuronpedia, write_saedashboard
from unweave.pipelines.export_pages import write_pages
from unweave.pipelines.export_sources import ExportConfig, LatentSource, Told, open_source
from unweave.pipelines.progress import Watch
from unweave.registry import lookup

MANIFEST = "export.json"
"""Says what a folder was exported from; a folder without one is never overwritten."""


class Format(NamedTuple):
    """How latents are written in a format."""

    write: Callable[[Sequence[LatentSource], Path, ExportConfig, Told], None]
    reach: int
    """Tokens shown to each side of an example's peak, where nothing else is asked for."""


FORMATS = {
    "html": Format(write_pages, 40),
    "neuronpedia": Format(write_neuronpedia, 63),  # 127 tokens, as theirs have
    "saedashboard": Format(write_saedashboard, 63),
}
"""By name."""


def export(
    paths: Sequence[Path], to: str, out: Path, watch: Watch, config: ExportConfig, *, overwrite: bool = False
) -> Path:
    """Write the latents of runs, or of SAEDashboard's folders, to the new folder ``out``.

    Raises ``UserError`` where it exists, unless it is an export and is to be overwritten.
    """
    write, reach = lookup(to, FORMATS, "format")
    with watch.waiting("opening"):
        reach = reach if config.reach is None else config.reach
        sources = [open_source(path, config.latents, reach) for path in paths]
    with _new_folder(out, overwrite=overwrite) as folder, watch.slow_bar("writing latents") as bar:
        write(sources, folder, config, bar)
        manifest = {
            "unweave": version("unweave"),
            "format": to,
            "of": [{"name": source.name, "model": source.model, "site": source.site} for source in sources],
            "n_latents": [len(source.chosen) for source in sources],
        }
        write_atomically(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    return out


@contextmanager
def _new_folder(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """``new_folder`` where none is, or an export that may be overwritten; else a ``UserError``."""
    if path.exists():
        if not overwrite:
            raise UserError(f"{str(path)!r} exists; choose another --out, or pass --overwrite to replace it")
        if not path.is_dir() or (any(path.iterdir()) and not (path / MANIFEST).is_file()):
            raise UserError(f"{str(path)!r} is not an export, so it is not overwritten; choose another --out")
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(new_folder(path))
        except OSError as error:
            raise UserError(f"cannot write to {str(path)!r}: {error.strerror}; choose another --out") from error
        yield folder
