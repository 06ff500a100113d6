"""The page of what sparsity costs: the coders of a sweep, or all coders of one site of one model, against L0."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import HTMLResponse

from unweave.analysis.pareto import SHOWN, ParetoPoint, SweptCoder, pareto_lines
from unweave.errors import UserError, nearest
from unweave.metrics import definitions
from unweave.pages.measured import Mark, finite
from unweave.pages.sweep import COLUMNS
from unweave.pipelines.sweep import read_sweep
from unweave.storage.results import Results, read_results
from unweave.storage.run_facts import RunFacts
from unweave.web.library import Library, Shelves
from unweave.web.runs import facts_of
from unweave.web.shell import page

router = APIRouter()


@dataclass(frozen=True)
class Choice:
    """A set of coders that can be drawn."""

    kind: Literal["sweep", "site"]
    name: str
    """What ``of`` is for it."""
    text: str
    n_coders: int


@dataclass(frozen=True)
class CoderPoint:
    """One coder, with the standard errors of its own measurement."""

    run: RunFacts
    line: str
    setting: str
    figures: dict[str, Mark]
    why_no_figures: str


@dataclass(frozen=True)
class LinePoint:
    """Coders of one setting, which differ in their seed alone."""

    setting: str
    runs: list[str]
    figures: dict[str, Mark]
    """The mean over the coders, with the standard error of that mean; of a single coder its own."""


@dataclass(frozen=True)
class Line:
    """Settings that differ in sparsity alone, sparsest first."""

    name: str
    points: list[LinePoint]


@dataclass(frozen=True)
class ShownFigure:
    """A figure of the page."""

    name: str
    title: str
    meaning: str
    is_drawn: bool
    """Against L0; all are in the table."""


@dataclass(frozen=True)
class SweepsPage:
    """What sparsity costs a set of coders."""

    choices: list[Choice]
    chosen: Choice | None
    lines: list[Line]
    coders: list[CoderPoint]
    figures: list[ShownFigure]


class _Member(NamedTuple):
    run: RunFacts
    line: str
    setting: str


@router.get("/sweeps.json", operation_id="sweeps")
def sweeps(
    library: Shelves,
    kind: Literal["sweep", "site", ""] = "",
    of: Annotated[str, Query(max_length=2000)] = "",
) -> SweepsPage:
    """Coders against L0. ``kind`` and ``of``: one of the choices; the first one unless told."""
    runs = {name: facts_of(library, name) for name in library.places()}
    swept = _sweeps(library, runs)
    choices = [Choice("sweep", name, name.replace("~", "/"), len(members)) for name, members in swept.items()]
    sites = _sites(runs)
    choices += [Choice("site", name, name, len(members)) for name, members in sites.items()]
    if not choices:
        return SweepsPage([], None, [], [], [])
    chosen = _chosen(choices, kind, of)
    members = (swept if chosen.kind == "sweep" else sites)[chosen.name]
    points = [_point(library, *member) for member in members]
    known = definitions()
    figures = [ShownFigure(name, known[name].title, known[name].meaning, name in SHOWN) for name in COLUMNS]
    return SweepsPage(choices, chosen, _lines(points), points, figures)


@router.get("/sweeps", include_in_schema=False)
def sweeps_page() -> HTMLResponse:
    return page("sweeps_page", "Sweeps", styles=("sweeps",))


def _chosen(choices: Sequence[Choice], kind: str, of: str) -> Choice:
    if not kind and not of:
        return choices[0]
    fitting = [choice for choice in choices if kind in ("", choice.kind) and of in ("", choice.name)]
    if not fitting:
        hint = nearest(of, [choice.name for choice in choices]) or "; this page has a list of them"
        raise HTTPException(404, f"there is no sweep or site {of!r}{hint}")
    return fitting[0]


def _sweeps(library: Library, runs: Mapping[str, RunFacts]) -> dict[str, list[_Member]]:
    """The coders of each sweep whose report is written, by the sweep's name."""
    places = library.places()
    folders: dict[Path, list[str]] = {}
    for name in runs:
        if places[name].parent.name == "coders":
            folders.setdefault(places[name].parent.parent, []).append(name)
    found = {}
    for folder, names in folders.items():
        told = _told(folder)
        members = [_Member(runs[name], *told[places[name].name]) for name in names if places[name].name in told]
        if members:
            found["~".join(folder.relative_to(library.root).parts) or library.root.name] = members
    return found


def _told(folder: Path) -> dict[str, tuple[str, str]]:
    """Line and setting of each coder of a sweep; none where its report is missing or damaged."""
    try:
        return {str(one["name"]): (str(one["line"]), str(one["setting"])) for one in read_sweep(folder)["coders"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _sites(runs: Mapping[str, RunFacts]) -> dict[str, list[_Member]]:
    """Runs whose coders read and write at the same sites of the same model, where there are at least two."""
    found: dict[str, list[_Member]] = {}
    for run in runs.values():
        if run.model and run.reads:
            writes = f" → {', '.join(run.writes)}" if run.writes else ""
            line = f"{run.architecture}, {run.n_latents:,} latents"
            found.setdefault(f"{', '.join(run.reads)}{writes} of {run.model}", []).append(_Member(run, line, run.path))
    return {name: members for name, members in found.items() if len(members) > 1}


def _point(library: Library, run: RunFacts, line: str, setting: str) -> CoderPoint:
    try:
        results = read_results(library.run(run.name).path)
    except (UserError, OSError) as error:
        return CoderPoint(run, line, setting, {}, " ".join(str(error).split()))
    return CoderPoint(run, line, setting, {name: _mark(results, name) for name in COLUMNS}, "")


def _lines(points: Sequence[CoderPoint]) -> list[Line]:
    return [
        Line(line.name, [_line_point(line.name, point, points) for point in line.points])
        for line in pareto_lines([_swept(point) for point in points])
    ]


def _swept(point: CoderPoint) -> SweptCoder:
    figures = {name: math.nan if mark.value is None else mark.value for name, mark in point.figures.items()}
    return SweptCoder(point.run.name, point.line, point.setting, figures)


def _line_point(line: str, point: ParetoPoint, points: Sequence[CoderPoint]) -> LinePoint:
    own = [coder for coder in points if coder.line == line and coder.setting == point.setting and coder.figures]
    if len(own) == 1:
        return LinePoint(point.setting, [own[0].run.name], {name: own[0].figures[name] for name in point.figures})
    figures = {name: Mark(finite(spread.mean), finite(spread.error)) for name, spread in point.figures.items()}
    return LinePoint(point.setting, [coder.run.name for coder in own], figures)


def _mark(results: Results, name: str) -> Mark:
    return Mark(finite(results.figures.get(name)), finite(results.standard_errors.get(name)))
