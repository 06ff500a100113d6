"""Export of latents in all formats, those of other people's dashboards and pages like the app's own."""

from collections.abc import Sequence
from pathlib import Path

from unweave.pipelines import export as dashboards
from unweave.pipelines.export_sources import ExportConfig
from unweave.pipelines.progress import Watch
from unweave.web.export_pages import write_pages

FORMATS = {"html": dashboards.Format(write_pages, 40), **dashboards.FORMATS}
"""By name."""


def export(
    paths: Sequence[Path], to: str, out: Path, watch: Watch, config: ExportConfig, *, overwrite: bool = False
) -> Path:
    """Write the latents of runs, or of SAEDashboard's folders, to the new folder ``out``.

    Raises ``UserError`` where it exists, unless it is an export and is to be overwritten.
    """
    return dashboards.export(paths, to, out, watch, config, overwrite=overwrite, formats=FORMATS)
