"""The page of two coders: their figures beside each other, and latents of one with their counterparts in the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from unweave.analysis.counterparts import Counterparts, counterparts
from unweave.analysis.definitions import definitions as comparisons
from unweave.analysis.matching import SHARED_OVER
from unweave.analysis.paired import Difference
from unweave.errors import UserError
from unweave.formats.native import WEIGHTS
from unweave.metrics import Definition, definitions
from unweave.pages.measured import finite
from unweave.pipelines.compare import compare
from unweave.storage.index_folder import LatentIndex
from unweave.storage.latent_table import MOST_ROWS, TableQuery
from unweave.storage.results import RESULTS, Figures, read_results
from unweave.storage.run_facts import RunFacts, index_state
from unweave.web.jobs import Going
from unweave.web.library import Library, Shelves
from unweave.web.runs import facts_of
from unweave.web.shell import page

router = APIRouter()
View = Literal["matched", "only_a", "only_b"]
Sort = Literal["cosine", "density_a", "density_b", "latent_a", "latent_b"]
_BINS = 40


@dataclass(frozen=True)
class ComparedFigure:
    """One figure of two coders."""

    name: str
    title: str
    meaning: str
    good: str
    a: float | None
    b: float | None
    a_error: float | None
    """Standard error, by leaving out one block of documents at a time."""
    b_error: float | None
    low: float | None
    """Of the interval that holds 95 % of the differences, b less a, when blocks of documents are drawn again."""
    high: float | None
    is_real: bool
    """Whether 0 lies outside that interval."""


@dataclass(frozen=True)
class ComparedLatent:
    """One of the two latents of a row."""

    latent: int
    density: float | None
    """None where the run has no index."""
    peaks: list[str]
    label: str


@dataclass(frozen=True)
class LatentPair:
    """A row: two latents, and the cosine of what they write."""

    a: ComparedLatent
    b: ComparedLatent
    cosine: float


@dataclass(frozen=True)
class BestCosines:
    """Latents of the first coder by their best absolute cosine with the second, in bins of equal width from 0 to 1."""

    counts: list[int]
    by_chance: list[int]
    """The same after a random rotation of the second coder's directions."""


@dataclass(frozen=True)
class MatchedLatents:
    """Latents of two coders beside each other."""

    view: View
    under: float
    """Best absolute cosine below which a latent counts as one without a counterpart."""
    n_matched: int
    n_only_a: int
    n_only_b: int
    found: int
    """Rows of this view."""
    rows: list[LatentPair]
    figures: list[ComparedFigure]
    """Of the matching as a whole, in ``a``."""
    cosines: BestCosines


@dataclass(frozen=True)
class ComparePage:
    """Two coders."""

    runs: list[RunFacts]
    """All that may be chosen."""
    a: RunFacts | None
    b: RunFacts | None
    figures: list[ComparedFigure]
    why_no_intervals: str
    """Empty where each difference has its interval."""
    latents: MatchedLatents | None
    why_no_latents: str
    """Empty where latents are matched, or will be."""
    going: str
    """What is still being computed; ask again until it is empty."""


class _Sides(NamedTuple):
    """Numbers of the latents of each row, and their cosines."""

    a: np.ndarray
    b: np.ndarray
    cosine: np.ndarray


@router.get("/compare.json", operation_id="compare")
def compared(
    library: Shelves,
    a: Annotated[str, Query(max_length=1000)] = "",
    b: Annotated[str, Query(max_length=1000)] = "",
    view: View = "matched",
    under: Annotated[float, Query(ge=0, le=1)] = SHARED_OVER,
    sort: Sort = "cosine",
    descending: bool = True,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 50,
) -> ComparePage:
    """Two coders, once ``a`` and ``b`` are names of runs.

    ``view``: latents that are matched one to one, or those of one coder whose best absolute cosine with any of the
    other is below ``under``.
    """
    runs = [facts_of(library, name) for name in library.places()]
    first, second = (facts_of(library, name) if name else None for name in (a, b))
    if first is None or second is None:
        return ComparePage(runs, first, second, [], "", None, "", "")
    figures, why_no_intervals, going = _figures(library, a, b)
    latents, why_no_latents = None, ""
    try:
        key = "counterparts", _weights(library, a), _weights(library, b)
        found = library.jobs.result(key, lambda: _found(library, a, b))
    except (UserError, OSError) as error:
        why_no_latents = _line(error)
    else:
        if isinstance(found, Going):
            going = f"Matching their latents, for {found.seconds:.0f} s so far"
        else:
            rows = _sorted(library, (a, b), _sides(found, view, under), sort, descending)
            latents = _matched(library, (a, b), found, rows, view, under, slice(offset, offset + limit))
    return ComparePage(runs, first, second, figures, why_no_intervals, latents, why_no_latents, going)


@router.get("/compare", include_in_schema=False)
def compare_page() -> HTMLResponse:
    return page("compare_page", "Compare", styles=("compare",))


class _Alone(NamedTuple):
    """What was measured of one coder."""

    figures: Figures
    errors: Figures


def _figures(library: Library, a: str, b: str) -> tuple[list[ComparedFigure], str, str]:
    """Figures of both, why they have no intervals, and whether these are still being computed."""
    paths = [library.run(name).path for name in (a, b)]
    alone, problems = zip(*(_alone(path) for path in paths), strict=True)
    paired, why, going = ({}, "; ".join(filter(None, problems)), "") if any(problems) else _paired(library, *paths)
    known = definitions()
    names = [name for name in known if any(name in of.figures for of in alone)]
    return [_figure(known[name], alone, paired.get(name)) for name in names], why, going


def _alone(path: Path) -> tuple[_Alone, str]:
    """The figures of a run, or why there are none."""
    try:
        results = read_results(path)
    except (UserError, OSError) as error:
        return _Alone({}, {}), _line(error)
    return _Alone(results.figures, results.standard_errors), ""


def _paired(library: Library, a: Path, b: Path) -> tuple[dict[str, Difference], str, str]:
    """Differences by figure, why there are none, and whether they are still being computed."""
    stamps = [(path, (path / RESULTS).stat().st_mtime_ns) for path in (a, b)]
    try:
        found = library.jobs.result(("figures", *stamps), lambda: compare(a, b))
    except (UserError, OSError) as error:
        return {}, _line(error), ""
    if isinstance(found, Going):
        return {}, "", f"Drawing blocks of documents again, for {found.seconds:.0f} s so far"
    return {difference.name: difference for difference in found}, "", ""


def _figure(known: Definition, alone: Sequence[_Alone], paired: Difference | None = None) -> ComparedFigure:
    a, b = (finite(of.figures.get(known.name)) for of in alone)
    a_error, b_error = (finite(of.errors.get(known.name)) for of in alone)
    low, high = (None, None) if paired is None else (finite(paired.low), finite(paired.high))
    is_real = paired is not None and low is not None and paired.is_real
    about = known.name, known.title, known.meaning, known.good
    return ComparedFigure(*about, a, b, a_error, b_error, low, high, is_real)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _weights(library: Library, name: str) -> tuple[str, int, int]:
    """What changes when a run's coder does."""
    path = library.run(name).path / "coder" / WEIGHTS
    facts = path.stat()
    return str(path), facts.st_mtime_ns, facts.st_size


def _found(library: Library, a: str, b: str) -> tuple[Counterparts, int]:
    first, second = (library.run(name).coder.W_dec.detach() for name in (a, b))
    return counterparts(first, second), first.shape[1]


def _sides(found: tuple[Counterparts, int], view: View, under: float) -> _Sides:
    counterparts = found[0]
    if view == "matched":
        a, b, cosines = (part.cpu().numpy() for part in counterparts.matching)
        return _Sides(a, b, cosines)
    near = counterparts.forth if view == "only_a" else counterparts.back
    cosines, ids = (part.flatten().cpu().numpy() for part in near)
    lonely = np.flatnonzero(np.abs(cosines) < under)
    a, b = (lonely, ids[lonely]) if view == "only_a" else (ids[lonely], lonely)
    return _Sides(a, b, cosines[lonely])


def _sorted(library: Library, names: tuple[str, str], rows: _Sides, sort: Sort, descending: bool) -> _Sides:
    keys = {"cosine": np.abs(rows.cosine), "latent_a": rows.a, "latent_b": rows.b}
    if sort.startswith("density"):
        side = 0 if sort == "density_a" else 1
        densities = _densities(library, names[side])
        keys[sort] = np.zeros(len(rows.a)) if densities is None else densities[rows[side]]
    key = keys[sort].astype(np.float64)
    order = np.argsort(-key if descending else key, kind="stable")
    return _Sides(*(part[order] for part in rows))


def _matched(
    library: Library,
    names: tuple[str, str],
    found: tuple[Counterparts, int],
    rows: _Sides,
    view: View,
    under: float,
    shown: slice,
) -> MatchedLatents:
    counterparts, width = found
    best = [near.cosines.abs().flatten().cpu() for near in (counterparts.forth, counterparts.back)]
    sides = [_latents(library, name, part[shown].tolist()) for name, part in zip(names, rows, strict=False)]
    pairs = [LatentPair(*pair) for pair in zip(*sides, rows.cosine[shown].round(4).tolist(), strict=True)]
    known, whole = comparisons(), counterparts.figures(width)
    return MatchedLatents(
        view=view,
        under=under,
        n_matched=len(counterparts.matching.first),
        n_only_a=int((best[0] < under).sum()),
        n_only_b=int((best[1] < under).sum()),
        found=len(rows.a),
        rows=pairs,
        figures=[_figure(known[name], (_Alone({name: value}, {}), _Alone({}, {}))) for name, value in whole.items()],
        cosines=BestCosines(_bins(best[0]), _bins(counterparts.rotated_L.cpu())),
    )


def _bins(cosines: torch.Tensor) -> list[int]:
    return np.histogram(cosines.clamp(max=1.0).numpy(), bins=_BINS, range=(0, 1))[0].tolist()


def _latents(library: Library, name: str, ids: list[int]) -> list[ComparedLatent]:
    index = _index(library, name)
    if index is None:
        return [ComparedLatent(latent, None, [], "") for latent in ids]
    rows, _ = index.rows(TableQuery(among=sorted(set(ids)), limit=MOST_ROWS))
    labels = library.notes(name).labels()
    known = {row.latent: ComparedLatent(row.latent, row.density, row.peaks, labels.get(row.latent, "")) for row in rows}
    return [known.get(latent, ComparedLatent(latent, None, [], "")) for latent in ids]


def _densities(library: Library, name: str) -> np.ndarray | None:
    index = _index(library, name)
    return None if index is None else library.once(index, _density_column)


def _density_column(index: LatentIndex) -> np.ndarray:
    return np.array(index.table.column("density"))


def _index(library: Library, name: str) -> LatentIndex | None:
    """The run's index, or None where it has none of its coder."""
    if index_state(library.run(name).path) != "ready":
        return None
    try:
        return library.index(name)
    except UserError:
        return None
