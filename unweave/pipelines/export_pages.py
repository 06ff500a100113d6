"""Write latents as pages that open from a folder with no server and no network."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from unweave.formats.files import write_texts
from unweave.latent_record import LatentRecord
from unweave.pages.latent_pages import LATENT_PAGES, RUNS_PAGE, ShownLatents, address_names, latent_files
from unweave.pages.shell import page_files
from unweave.pipelines.export_sources import ExportConfig, LatentSource, Told, watched
from unweave.storage.run_facts import RunFacts, run_facts
from unweave.storage.run_folder import Run


def write_pages(sources: Sequence[LatentSource], folder: Path, config: ExportConfig, told: Told) -> None:
    """A folder whose ``index.html`` lists the runs."""
    names = address_names([source.name for source in sources])
    records = watched(sources, told)
    shown = [
        _shown(source, name, islice(records, len(source.chosen))) for source, name in zip(sources, names, strict=True)
    ]
    write_texts(folder, latent_files(shown))
    write_texts(folder, page_files([RUNS_PAGE, *LATENT_PAGES], home="Runs").items())


def _shown(source: LatentSource, name: str, records: Iterable[LatentRecord]) -> ShownLatents:
    return ShownLatents(
        facts=_facts(source, name),
        n_tokens=source.n_tokens,
        latents=source.chosen,
        records=records,
        vocabulary=source.vocabulary,
        notes=source.notes,
    )


def _facts(source: LatentSource, name: str) -> RunFacts:
    if (source.path / "config.toml").is_file():
        return run_facts(Run(source.path), name=name, path=source.name)
    about = RunFacts(name=name, path=source.name, model=source.model, n_latents=source.n_latents)
    return replace(about, reads=(source.site,), index="ready")
