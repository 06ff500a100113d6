"""The page of all runs below the folder that is served."""

from dataclasses import dataclass, replace

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from unweave.storage.run_facts import RunFacts, index_state, run_facts
from unweave.web.library import Library, Shelves
from unweave.web.shell import page

router = APIRouter()


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
    """Facts of one run, which are read anew when its files have changed."""
    run = library.run(name)
    files = [run.path / "coder" / "config.toml", run.path / "results.json", run.path / "manifest.json"]
    shown = run.path.relative_to(library.root).as_posix()
    path = run.path.name if shown == "." else shown
    facts = library.kept((name, "facts"), files, lambda: run_facts(run, name=name, path=path))
    return replace(facts, index=index_state(run.path))
