"""The map of a run's latents: a point for each, near those that write in like directions."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field
from torch import Tensor

from unweave.analysis.latent_map import (
    PrincipalPlane,
    clusters,
    principal_plane,
    telling_words,
    umap_is_installed,
    umap_plane,
    usual_clusters,
)
from unweave.errors import UserError
from unweave.storage.index_folder import LatentIndex
from unweave.storage.latent_table import MOST_ROWS, TableQuery
from unweave.storage.map_folder import MapFolder
from unweave.storage.notes import LONGEST, Notes
from unweave.storage.run_facts import RunFacts
from unweave.web.jobs import Going, in_process
from unweave.web.library import Library, Shelves
from unweave.web.runs import facts_of
from unweave.web.shell import page

router = APIRouter()
Projection = Literal["pca", "umap"]
_MOST_CLUSTERS = 24
_MOST_FOUND = 10_000
_SEED = 0
_DIGITS = 5
"""Of a place between -1 and 1: more than a screen can show."""
_AXES = ("1st", "2nd")


@dataclass(frozen=True)
class Cluster:
    """Latents whose directions are near each other."""

    n_latents: int
    words: list[str]
    """Tokens on which its latents peak oftener than others do."""


@dataclass(frozen=True)
class MapPage:
    """All of the page but its points."""

    run: RunFacts
    n_latents: int
    projection: Projection
    n_clusters: int
    umap: str
    """Why there is no UMAP here; empty where there is."""
    found: list[int] | None
    """Latents that fit the search, the first 10,000; None without a search."""
    n_found: int
    labels: dict[int, str]
    lists: dict[str, list[int]]


@dataclass(frozen=True)
class MapPoints:
    """A value for each latent, in the order of their numbers."""

    going: str
    """What is still being computed; ask again until it is empty."""
    x: list[float]
    y: list[float]
    axes: list[str]
    """What either axis is; empty where it means nothing."""
    density: list[float]
    max: list[float]
    peaks: list[list[str]]
    """The most frequent tokens on which it peaks."""
    cluster: list[int]
    clusters: list[Cluster]


class NewList(BaseModel):
    """Latents for a list."""

    name: Annotated[str, Field(min_length=1, max_length=LONGEST["list"])]
    latents: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1, max_length=100_000)]


class ListLength(BaseModel):
    """A list that was written to."""

    name: str
    n_latents: int


@router.get("/runs/{run}/map.json", operation_id="latent_map")
def latent_map(
    run: str,
    library: Shelves,
    projection: Projection = "pca",
    n_clusters: Annotated[int | None, Query(alias="clusters", ge=2, le=_MOST_CLUSTERS)] = None,
    search: Annotated[str, Query(max_length=1000)] = "",
) -> MapPage:
    """What the map is of. ``search``: words that a token begins with or a label holds, or the number of a latent."""
    index, notes = library.index(run), library.notes(run)
    found, n_found = _found(index, notes, search) if search.strip() else (None, 0)
    return MapPage(
        run=facts_of(library, run),
        n_latents=len(index),
        projection=projection,
        n_clusters=n_clusters or usual_clusters(len(index)),
        umap="" if umap_is_installed() else "UMAP needs `pip install 'unweave[map]'`.",
        found=found,
        n_found=n_found,
        labels=notes.labels(),
        lists={one.name: one.latents for one in notes.lists()},
    )


@router.get("/runs/{run}/map/points.json", operation_id="latent_map_points")
def points(
    run: str,
    library: Shelves,
    projection: Projection = "pca",
    n_clusters: Annotated[int | None, Query(alias="clusters", ge=2, le=_MOST_CLUSTERS)] = None,
) -> MapPoints:
    """Where each latent lies, and what it may be coloured by; only ``going`` while that is being computed."""
    index = library.index(run)
    n_clusters = n_clusters or usual_clusters(len(index))
    facts = library.once(index, _facts)
    made = _principal(library, run) if projection == "pca" else _kept(library, run, f"umap-{_SEED}", _umap)
    if isinstance(made, Going):
        method = "The projection" if projection == "pca" else "UMAP"
        return _not_yet(f"{method} is being computed, for {made.seconds:.0f} s so far")
    members = _kept(library, run, f"clusters-{n_clusters}-{_SEED}", partial(_clusters, n_clusters))
    if isinstance(members, Going):
        return _not_yet(f"Clusters are being found, for {members.seconds:.0f} s so far")
    axes: list[str] = []
    if isinstance(made, PrincipalPlane):
        axes = [_axis(name, share) for name, share in zip(_AXES, made.shares, strict=True)]
        made = made.places_L2.numpy()
    places = made.astype(np.float64)
    places -= (places.max(0) + places.min(0)) / 2
    places /= np.abs(places).max() or 1.0
    return MapPoints(
        going="",
        x=places[:, 0].round(_DIGITS).tolist(),
        y=places[:, 1].round(_DIGITS).tolist(),
        axes=axes,
        density=facts.density,
        max=facts.max,
        peaks=facts.peaks,
        cluster=members.tolist(),
        clusters=_described(members, facts.peaks),
    )


@router.get("/runs/{run}/map", include_in_schema=False)
def map_page(run: str) -> HTMLResponse:
    return page("map_page", f"Map · {run}", styles=("map",))


@router.post("/runs/{run}/lists", operation_id="list_latents")
def put_all(run: str, wish: NewList, library: Shelves) -> ListLength:
    """Put latents on a list, which is made where there is none."""
    n_latents = len(library.index(run))
    if max(wish.latents) >= n_latents:
        raise UserError(f"there is no latent {max(wish.latents)}; this coder has latents 0 to {n_latents - 1}")
    notes = library.notes(run)
    notes.add(wish.name, *wish.latents)
    name = " ".join(wish.name.split())
    return ListLength(name=name, n_latents=len(notes.named(name).latents))


@dataclass(frozen=True)
class _Facts:
    density: list[float]
    max: list[float]
    peaks: list[list[str]]


def _facts(index: LatentIndex) -> _Facts:
    rows = []
    for first in range(0, len(index), MOST_ROWS):
        low, high = {"latent": float(first)}, {"latent": float(first + MOST_ROWS - 1)}
        rows += index.rows(TableQuery(limit=MOST_ROWS, at_least=low, at_most=high))[0]
    return _Facts([row.density for row in rows], [row.max for row in rows], [row.peaks[:3] for row in rows])


def _found(index: LatentIndex, notes: Notes, search: str) -> tuple[list[int], int]:
    wanted = search.strip()
    also = notes.search(wanted)
    if wanted.isascii() and wanted.isdigit() and int(wanted) < len(index):
        also.append(int(wanted))
    found: list[int] = []
    n_found = 1
    while len(found) < min(n_found, _MOST_FOUND):
        rows, n_found = index.rows(TableQuery(search=wanted, also=also, offset=len(found), limit=MOST_ROWS))
        found += [row.latent for row in rows]
        if not rows:
            break
    return found, n_found


def _axis(name: str, share: float) -> str:
    return f"{name} principal axis, {100 * share:.2g} % of the variance"


def _principal(library: Library, run: str) -> PrincipalPlane | Going:
    key = "principal plane", library.index(run).manifest["coder"]
    return library.jobs.result(key, lambda: principal_plane(_directions(library, run)))


def _kept(library: Library, run: str, name: str, make: Callable[[Tensor], np.ndarray]) -> np.ndarray | Going:
    """An array of the map, from the run's folder, or made and kept there."""
    index, path = library.index(run), library.run(run).path
    kept = MapFolder(path, index.manifest["coder"], len(index))

    def read_or_make() -> np.ndarray:
        found = kept.read(name)
        if found is None:
            found = make(_directions(library, run))
            with suppress(OSError):  # a run in a folder that may not be written to has its map in memory
                kept.write(name, found)
        return found

    return library.jobs.result((name, str(path), kept.coder), read_or_make)


def _directions(library: Library, run: str) -> Tensor:
    return library.run(run).coder.W_dec.detach()


def _umap(W_LD: Tensor) -> np.ndarray:
    """In a process of its own: compiled loops of UMAP hold the interpreter, and would hold up all pages."""
    return in_process(umap_plane, W_LD.float().numpy(), _SEED)


def _clusters(n: int, W_LD: Tensor) -> np.ndarray:
    return clusters(W_LD, n, seed=_SEED)


def _described(members: np.ndarray, peaks: list[list[str]]) -> list[Cluster]:
    words = telling_words(members, peaks)
    return [Cluster(n, own) for n, own in zip(np.bincount(members).tolist(), words, strict=True)]


def _not_yet(said: str) -> MapPoints:
    return MapPoints(said, [], [], [], [], [], [], [], [])
