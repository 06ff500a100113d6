"""The page of a run's lists: latents under names that people gave."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from unweave.storage.latent_table import MOST_ROWS, TableQuery, TableRow
from unweave.storage.notes import LONGEST
from unweave.storage.run_facts import RunFacts
from unweave.web.latent import check_latent
from unweave.web.library import Shelves
from unweave.web.runs import facts_of
from unweave.web.shell import page

router = APIRouter()
ListName = Annotated[str, Field(min_length=1, max_length=LONGEST["list"])]


@dataclass(frozen=True)
class ListedLatents:
    """One list."""

    name: str
    n_latents: int
    rows: list[TableRow]
    """Its first latents."""


@dataclass(frozen=True)
class ListsPage:
    """All lists of a run."""

    run: RunFacts
    lists: list[ListedLatents]
    labels: dict[int, str]
    """All labels of the run."""


class Membership(BaseModel):
    """Whether a latent is on a list."""

    name: ListName
    latent: Annotated[int, Field(ge=0, lt=2**31)]
    listed: bool


class Renaming(BaseModel):
    """Another name for a list."""

    name: ListName
    new: ListName


class Memberships(BaseModel):
    """Each list, and whether the latent in question is on it."""

    lists: dict[str, bool]


class Names(BaseModel):
    """All lists."""

    lists: list[str]


@router.get("/runs/{run}/lists.json", operation_id="lists")
def lists(run: str, library: Shelves) -> ListsPage:
    """The lists of a run, each with its first 1,000 latents."""
    index, notes = library.index(run), library.notes(run)
    found = []
    for one in notes.lists():
        rows, _ = index.rows(TableQuery(among=one.latents, limit=MOST_ROWS))
        found.append(ListedLatents(one.name, len(one.latents), rows))
    return ListsPage(facts_of(library, run), found, notes.labels())


@router.get("/runs/{run}/lists", include_in_schema=False)
def lists_page(run: str) -> HTMLResponse:
    return page("lists_page", f"Lists · {run}")


@router.put("/runs/{run}/lists", operation_id="list_latent")
def put(run: str, wish: Membership, library: Shelves) -> Memberships:
    """Put a latent on a list, which is made where there is none, or take it off."""
    check_latent(library, run, wish.latent)
    notes = library.notes(run)
    if wish.listed:
        notes.add(wish.name, wish.latent)
    else:
        notes.remove(wish.name, wish.latent)
    return Memberships(lists={one.name: wish.latent in one.latents for one in notes.lists()})


@router.patch("/runs/{run}/lists", operation_id="rename_list")
def rename(run: str, wish: Renaming, library: Shelves) -> Names:
    """Give a list another name."""
    notes = library.notes(run)
    notes.rename(wish.name, wish.new)
    return Names(lists=[one.name for one in notes.lists()])


@router.delete("/runs/{run}/lists", operation_id="delete_list")
def delete(run: str, name: Annotated[str, Query(max_length=LONGEST["list"])], library: Shelves) -> Names:
    """Remove a list; its latents keep their labels."""
    notes = library.notes(run)
    notes.delete(name)
    return Names(lists=[one.name for one in notes.lists()])
