"""Turn what a run holds into pages and a coder card."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unweave.analysis.doctor import Finding, diagnose
from unweave.coders import Wiring
from unweave.formats.files import new_folder, write_atomically, write_texts
from unweave.metrics import Definition, definitions
from unweave.pages.card import coder_card
from unweave.pages.latent_pages import ShownLatents, address_names
from unweave.pages.measured import measurement
from unweave.pages.report import ReportData, report_files
from unweave.storage.notes import Notes
from unweave.storage.results import read_results, read_suites
from unweave.storage.run_facts import run_facts
from unweave.storage.run_folder import Run


def write_report(run: Run, *, name: str) -> Path:
    """Write ``report/`` and the coder's card; returns the path of the report's first page."""
    results = run.results
    findings = diagnose_run(run)
    data = ReportData(
        name=name,
        facts=_facts(run),
        results=figures(results),
        standard_errors=results["standard_errors"],
        definitions=definitions(),
        curve=run.curve,
        latents=_latents(run, name),
        findings=findings,
        measured=measurement(read_results(run.path), read_suites(run.path), suite_definitions()),
    )
    replace_folder(run.path / "report", report_files(data))
    card = coder_card(name, data.facts, data.results, data.standard_errors, definitions(), findings)
    write_atomically(run.path / "coder" / "README.md", card)
    return run.path / "report" / "index.html"


def replace_folder(folder: Path, files: Iterable[tuple[str, str]]) -> None:
    """Write a folder of texts under another name first, so that pages and their data always belong together."""
    with new_folder(folder) as partial:
        write_texts(partial, files)


def suite_definitions() -> dict[str, dict[str, Definition]]:
    """What the figures of each suite mean, by the suite's name and theirs."""
    from unweave.pipelines.suites import SUITES  # which measure what is reported here

    return {name: {known.name: known for known in suite.definitions()} for name, suite in SUITES.items()}


def diagnose_run(run: Run) -> list[Finding]:
    """What the doctor says of a run."""
    return diagnose(run.results, run.curve)


def figures(results: dict[str, Any]) -> dict[str, float]:
    """The defined figures among the results, in the order in which they are shown."""
    return {name: results[name] for name in definitions() if name in results}


def _latents(run: Run, name: str) -> ShownLatents:
    index = run.latents
    return ShownLatents(
        facts=run_facts(run, name=address_names([name])[0], path=name),
        n_tokens=index.manifest["n_rows"],
        latents=range(len(index)),
        records=index,
        vocabulary=index.vocabulary(),
        notes=Notes(run.path / "notes.sqlite"),
    )


def _facts(run: Run) -> dict[str, str]:
    results, manifest = run.results, run.manifest
    origin = run.coder.origin
    assert origin is not None
    return {
        "Model": origin.model,
        "Site": _sites(run.coder.wiring),
        "Coder": f"{type(run.coder).__name__}, {results['n_latents']:,} latents {_width(run.coder.wiring)}",
        "Trained on": f"{manifest['rows_trained']:,} tokens of {_counted(manifest['documents']['train'])}",
        "Measured on": f"{results['n_tokens']:,} tokens of held-out documents",
        "Seed": str(manifest["seed"]),
        "Device": manifest["device"],
        "Versions": ", ".join(f"{name} {version}" for name, version in manifest["versions"].items()),
    }


def _counted(n_documents: int | None) -> str:
    return "a stream of documents" if n_documents is None else f"{n_documents:,} documents"


def _sites(wiring: Wiring) -> str:
    read, written = (", ".join(port.site for port in ports) for ports in (wiring.reads, wiring.writes))
    return read if wiring.writes_what_it_reads else f"{read} to {written}"


def _width(wiring: Wiring) -> str:
    if wiring.kind == "sae":
        return f"on width {wiring.d_read}"
    return f"{wiring.kind.replace('_', ' ')} from width {wiring.d_read} to {wiring.d_write}"
