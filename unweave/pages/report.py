"""The report of a run: a folder of static files that a browser opens with no network."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from unweave.analysis.doctor import Finding
from unweave.latent_record import LatentRecord
from unweave.metrics import Definition
from unweave.pages.data_script import data_script
from unweave.pages.featured import RULE, Best
from unweave.pages.fragments import census, facts_list, figure_rows, findings_list, headline_tiles, loss_ladder
from unweave.pages.latent_pages import LATENT_PAGES, ShownLatents, latent_files
from unweave.pages.measured import Measurement, l0_histogram, measured_section
from unweave.pages.overview import density_histogram, featured_cards, training_curves
from unweave.pages.shell import FolderPage, filled, page_files


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """All that a report shows."""

    name: str
    """Name of the run."""
    facts: dict[str, str]
    """Short facts for the head: model, site, coder, text."""
    results: dict[str, float | int]
    """Figures by name, in the order in which they are shown."""
    standard_errors: dict[str, float]
    """Standard errors of some of the figures."""
    definitions: dict[str, Definition]
    """What the figures mean, by name."""
    curve: list[dict[str, float | int]]
    """One line per logged training step."""
    latents: ShownLatents
    """Every latent."""
    findings: list[Finding]
    """What the doctor says."""
    measured: Measurement | None = None
    """The figures again, with their floors, and suites."""


def report_files(data: ReportData) -> Iterator[tuple[str, str]]:
    """Relative path and content of each file of the report, made one by one; ``index.html`` is the first page."""
    best = Best(data.latents.vocabulary)
    densities: list[float] = []

    def watched() -> Iterator[LatentRecord]:
        for record in data.latents.records:
            densities.append(record.density)
            best.show(record)
            yield record

    yield from latent_files([replace(data.latents, records=watched())])
    histogram = density_histogram(densities)
    drawn = {
        "curves": training_curves(data.curve),
        "densities": histogram,
        "tokens_by_l0": l0_histogram(data.measured),
        **featured_cards(best.chosen(), data.latents.vocabulary),
    }
    yield "data/report.js", data_script("report", drawn)
    first = FolderPage(
        file="index.html",
        name="report",
        module="report.js",
        title=f"{data.name} · unweave report",
        styles=("report.css", "measured.css"),
        data=("report",),
        body=filled("index.html", _texts(data, histogram)),
        has_charts=True,
    )
    yield from page_files([first, *LATENT_PAGES], home="Report", run=data.latents.facts.name).items()


def _texts(data: ReportData, histogram: dict[str, Any]) -> dict[str, str]:
    return {
        "name": escape(data.name),
        "facts": facts_list(data.facts),
        "findings": findings_list(data.findings),
        "tiles": headline_tiles(data.results, data.definitions),
        "ladder": loss_ladder(data.results),
        "measured": measured_section(data.measured) if data.measured else "",
        "figures": figure_rows(data.results, data.standard_errors, data.definitions),
        "featured_rule": escape(RULE),
        "n_latents": f"{histogram['n_latents']:,}",
        "n_tokens": f"{data.latents.n_tokens:,}",
        "census": census(histogram["n_latents"], histogram["n_dead"], histogram["n_dense"]),
    }
