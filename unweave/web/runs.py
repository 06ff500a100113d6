"""The page of all runs below the folder that is served."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from unweave.config import read_toml
from unweave.errors import UserError
from unweave.storage.run_folder import Run
from unweave.web.library import IndexState, Library, Shelves, index_state
from unweave.web.shell import page

router = APIRouter()


@dataclass(frozen=True)
class RunFacts:
    """What is said of a run wherever it is named."""

    name: str
    """In addresses."""
    path: str
    """Below the folder that is served."""
    model: str = ""
    reads: tuple[str, ...] = ()
    """Sites."""
    writes: tuple[str, ...] = ()
    """Sites, where they are others."""
    architecture: str = ""
    n_latents: int = 0
    explained_variance: float | None = None
    l0: float | None = None
    loss_recovered: float | None = None
    """Against the mean of the site in its place."""
    n_rows: float | None = None
    """Rows that the coder was trained on."""
    date: str | None = None
    """When it was measured, as ISO 8601 in the time zone of this machine."""
    index: IndexState = "none"
    problem: str = ""
    """Why the run cannot be shown, in one line."""


@dataclass(frozen=True)
class RunsPage:
    """All runs."""

    root: str
    """The folder that is served, as it was given."""
    runs: list[RunFacts]


@router.get("/index.json", operation_id="runs")
def runs(library: Shelves) -> RunsPage:
    """All runs below the folder, the latest first."""
    facts = [facts_of(library, name) for name in library.places()]
    return RunsPage(library.given, sorted(facts, key=lambda run: run.date or "", reverse=True))


@router.get("/", include_in_schema=False)
def runs_page() -> HTMLResponse:
    return page("runs_page", "Runs")


def facts_of(library: Library, name: str) -> RunFacts:
    """Facts of one run; a problem with its files is one of them."""
    run = library.run(name)
    files = [run.path / "coder" / "config.toml", run.path / "results.json", run.path / "manifest.json"]
    facts = library.kept((name, "facts"), files, lambda: _facts(library, name, run))
    return replace(facts, index=index_state(run.path))


def _facts(library: Library, name: str, run: Run) -> RunFacts:
    shown = run.path.relative_to(library.root).as_posix()
    about: dict[str, Any] = {"name": name, "path": run.path.name if shown == "." else shown}
    for read in (_of_coder, _of_results):
        try:
            about |= read(run)
        except (UserError, OSError) as error:
            about["problem"] = " ".join(str(error).split())
        except (KeyError, TypeError, AttributeError):
            about["problem"] = f"the coder of {str(run.path)!r} is damaged; train the run again"
    return RunFacts(**about)


def _of_coder(run: Run) -> dict[str, Any]:
    coder = read_toml(run.path / "coder" / "config.toml")
    reads, writes = (tuple(port["site"] for port in coder[kind]) for kind in ("reads", "writes"))
    return {
        "model": coder["model"],
        "reads": reads,
        "writes": () if writes == reads else writes,
        "architecture": coder["type"],
        "n_latents": coder["coder"]["n_latents"],
    }


def _of_results(run: Run) -> dict[str, Any]:
    if not (run.path / "results.json").is_file():
        return {"date": _date(run.path / "config.toml")}
    results = run.results
    return {
        "explained_variance": _figure(results, "explained_variance"),
        "l0": _figure(results, "l0"),
        "loss_recovered": _figure(results, "loss_recovered_mean"),
        "n_rows": _figure(run.manifest, "rows_trained"),
        "date": _date(run.path / "results.json"),
    }


def _figure(results: Mapping[str, Any], name: str) -> float | None:
    value = results.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _date(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime).astimezone().isoformat(timespec="seconds")
