"""The table of a run's latents: sorted, searched, filtered, page by page."""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from unweave.errors import UserError
from unweave.storage.index_folder import LatentIndex
from unweave.storage.latent_table import COLUMNS, MOST_ROWS, TableQuery, TableRow
from unweave.storage.notes import Notes
from unweave.storage.run_facts import RunFacts
from unweave.web.library import Shelves
from unweave.web.runs import facts_of
from unweave.web.shell import page

router = APIRouter()
_BINS_PER_DECADE = 4
_DECADES = (-7, 0)


@dataclass(frozen=True)
class Densities:
    """How many latents fire on which share of tokens, in bins of equal width of its logarithm."""

    edges: list[float]
    """Base 10 logarithms."""
    counts: list[int]
    """Latents in each bin; those that fire less than the first edge are in the first bin."""
    n_dead: int
    """Latents that never fire, which are in no bin."""


@dataclass(frozen=True)
class LatentsPage:
    """A page of the table."""

    run: RunFacts
    n_latents: int
    n_tokens: int
    """Tokens that the index was made of."""
    found: int
    """Latents that fit what is asked."""
    rows: list[TableRow]
    labels: dict[int, str]
    """Labels of the rows that have one."""
    densities: Densities
    """Of all latents."""
    columns: dict[str, str]
    """What each column of numbers means."""
    lists: list[str]
    """Names of the run's lists."""


@router.get("/runs/{run}.json", operation_id="latents")
def latents(
    run: str,
    library: Shelves,
    sort: str = "latent",
    descending: bool = False,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 100,
    search: Annotated[str, Query(max_length=1000)] = "",
    bounds: Annotated[list[str] | None, Query(alias="range", max_length=20)] = None,
    named: Annotated[str, Query(alias="list", max_length=200)] = "",
    labelled: bool = False,
) -> LatentsPage:
    """Latents of a run.

    ``search``: words that a token begins with or a label holds, or the number of a latent. ``range``: a column with
    its smallest and its largest value, either of which may be missing, such as ``density:0.001:0.01``. ``list``: only
    latents of this list. ``labelled``: only latents with a label.
    """
    index, notes = library.index(run), library.notes(run)
    labels = notes.labels()
    at_least, at_most = _bounds(bounds or [])
    query = TableQuery(
        sort=sort,
        descending=descending,
        offset=offset,
        limit=limit,
        search=search,
        also=_also(search, notes, len(index)),
        among=_among(named, labelled, notes, labels),
        at_least=at_least,
        at_most=at_most,
    )
    rows, found = index.rows(query)
    return LatentsPage(
        run=facts_of(library, run),
        n_latents=len(index),
        n_tokens=index.manifest["n_rows"],
        found=found,
        rows=rows,
        labels={row.latent: labels[row.latent] for row in rows if row.latent in labels},
        densities=library.once(index, _densities),
        columns=COLUMNS,
        lists=[one.name for one in notes.lists()],
    )


@router.get("/runs/{run}", include_in_schema=False)
def latents_page(run: str) -> HTMLResponse:
    return page("latents_page", f"Latents · {run}")


def _also(search: str, notes: Notes, n_latents: int) -> list[int]:
    """Latents that fit a search by what people wrote of them, or by their number."""
    wanted = search.strip()
    found = notes.search(wanted) if wanted else []
    is_number = wanted.isascii() and wanted.isdigit() and int(wanted) < n_latents
    return [*found, int(wanted)] if is_number else found


def _among(named: str, labelled: bool, notes: Notes, labels: dict[int, str]) -> list[int] | None:
    if not named:
        return list(labels) if labelled else None
    members = notes.named(named).latents
    return [latent for latent in members if latent in labels] if labelled else members


def _bounds(ranges: list[str]) -> tuple[dict[str, float], dict[str, float]]:
    at_least, at_most = {}, {}
    for text in ranges:
        name, *ends = text.split(":")
        if len(ends) != 2:
            raise UserError(f"a range is column:smallest:largest, such as density:0.001:0.01, got {text!r}")
        for end, side in zip(ends, (at_least, at_most), strict=True):
            if end:
                side[name] = _number(end, text)
    return at_least, at_most


def _number(text: str, whole: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise UserError(f"a range has numbers for ends, got {text!r} in {whole!r}") from error
    if not math.isfinite(number):
        raise UserError(f"a range has finite ends, got {text!r} in {whole!r}; leave an end out instead")
    return number


def _densities(index: LatentIndex) -> Densities:
    density = np.array(index.table.column("density"))
    n_bins = (_DECADES[1] - _DECADES[0]) * _BINS_PER_DECADE
    alive = np.clip(np.log10(density[density > 0]), *_DECADES)
    counts, edges = np.histogram(alive, bins=n_bins, range=_DECADES)
    return Densities([round(float(edge), 4) for edge in edges], counts.tolist(), int((density == 0).sum()))
