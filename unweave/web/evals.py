"""The page of what was measured of a run's coder: figures and suites beside their floors, and distributions."""

from dataclasses import dataclass

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from unweave.pages.measured import Measurement, measurement
from unweave.pipelines.report import suite_definitions
from unweave.storage.results import read_results, read_suites
from unweave.storage.run_facts import RunFacts
from unweave.web.library import Shelves
from unweave.web.runs import facts_of
from unweave.web.shell import page

router = APIRouter()


@dataclass(frozen=True)
class EvalsPage:
    """What was measured of one run."""

    run: RunFacts
    measured: Measurement


@router.get("/runs/{run}/evals.json", operation_id="evals")
def evals(run: str, library: Shelves) -> EvalsPage:
    """All figures of a run with their standard errors, meanings and floors."""
    path = library.run(run).path
    found = measurement(read_results(path), read_suites(path), suite_definitions())
    return EvalsPage(facts_of(library, run), found)


@router.get("/runs/{run}/evals", include_in_schema=False)
def evals_page(run: str) -> HTMLResponse:
    return page("evals_page", f"Evals · {run}", styles=("measured", "evals"))
