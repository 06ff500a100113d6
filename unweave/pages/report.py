"""The report of a run: a folder of static files that a browser opens with no network."""

from dataclasses import dataclass
from html import escape

from unweave.analysis.doctor import Finding
from unweave.latent_record import LatentRecord
from unweave.metrics import Definition
from unweave.pages.data_script import data_script
from unweave.pages.featured import RULE
from unweave.pages.fragments import census, facts_list, figure_rows, findings_list, headline_tiles, loss_ladder
from unweave.pages.latent_data import TokenTable, latent_chunks, latent_index
from unweave.pages.measured import Measurement, l0_histogram, measured_section
from unweave.pages.overview import density_histogram, overview
from unweave.pages.shell import assets, page

_REPORT_SCRIPTS = (
    "assets/store.js",
    "assets/elements.js",
    "assets/tokens.js",
    "data/report.js",
    "assets/featured.js",
    "assets/plotly.min.js",
    "assets/charts.js",
    "assets/report.js",
)
_LATENT_SCRIPTS = (
    "assets/store.js",
    "assets/elements.js",
    "assets/tokens.js",
    "data/tokens.js",
    "data/latents.js",
    "assets/latent_list.js",
    "assets/latent_view.js",
    "assets/latents.js",
)


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
    records: list[LatentRecord]
    """Every latent, in the order of their numbers."""
    vocabulary: list[str]
    """Text of each token id."""
    findings: list[Finding]
    """What the doctor says."""
    measured: Measurement | None = None
    """The figures again, with their floors, and suites."""


def report_files(data: ReportData) -> dict[str, str]:
    """Relative path to content of each file of the report; ``index.html`` is the first page."""
    title = f"{data.name} · unweave"
    pages = {
        "index.html": page("index.html", "report", f"{title} report", _REPORT_SCRIPTS, _index_texts(data)),
        "latents.html": page(
            "latents.html", "browser", f"Latents · {title}", _LATENT_SCRIPTS, {"name": escape(data.name)}
        ),
    }
    return pages | assets() | {f"data/{name}.js": text for name, text in _data_scripts(data).items()}


def _data_scripts(data: ReportData) -> dict[str, str]:
    tokens = TokenTable(data.vocabulary)
    payloads = {
        "report": overview(data.curve, data.records, data.vocabulary) | {"tokens_by_l0": l0_histogram(data.measured)},
        "latents": latent_index(data.records, tokens),
        **dict(latent_chunks(data.records, tokens)),
    }
    payloads["tokens"] = tokens.payload()  # last: by now the table holds every token that is shown
    return {name: data_script(name, payload) for name, payload in payloads.items()}


def _index_texts(data: ReportData) -> dict[str, str]:
    densities = density_histogram(data.records)
    return {
        "name": escape(data.name),
        "facts": facts_list(data.facts),
        "findings": findings_list(data.findings),
        "tiles": headline_tiles(data.results, data.definitions),
        "ladder": loss_ladder(data.results),
        "measured": measured_section(data.measured) if data.measured else "",
        "figures": figure_rows(data.results, data.standard_errors, data.definitions),
        "featured_rule": escape(RULE),
        "n_latents": f"{densities['n_latents']:,}",
        "n_tokens": f"{densities['n_tokens']:,}",
        "census": census(densities["n_latents"], densities["n_dead"], densities["n_dense"]),
    }
