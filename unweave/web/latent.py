"""The page of one latent, its live test on a text of one's own, and what people write about it."""

from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Path, Query
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from unweave.latent_record import LatentRecord
from unweave.pages.latent_data import flags_of, shown_tokens
from unweave.storage.index_folder import LatentIndex
from unweave.storage.latent_table import MOST_ROWS, TableQuery
from unweave.storage.notes import LONGEST, Change, Label, Notes
from unweave.storage.run_facts import RunFacts
from unweave.web.library import Library, Shelves
from unweave.web.reading import LONGEST_TEXT, activations, windows
from unweave.web.runs import facts_of
from unweave.web.shell import page

router = APIRouter()
LatentId = Annotated[int, Path(ge=0, lt=2**31)]


@dataclass(frozen=True)
class Other:
    """How another latent is called."""

    label: str
    peaks: list[str]
    """Tokens on which its strongest examples peak."""


@dataclass(frozen=True)
class LatentPage:
    """All that is known of one latent."""

    run: RunFacts
    latent: LatentRecord
    texts: dict[int, str]
    """Text of each token id that is shown."""
    reach: int
    """Tokens shown to each side of an example's peak, where there are so many."""
    context: int
    """Tokens of a sequence of the index."""
    n_latents: int
    n_tokens: int
    """Tokens that the index was made of."""
    flags: list[str]
    others: dict[int, Other]
    """Its partners and the similar ones."""
    written: Label
    history: list[Change]
    lists: dict[str, bool]
    """Each list of the run, and whether the latent is on it."""


@dataclass(frozen=True)
class Window:
    """A stretch of the text that the model read at once."""

    token_ids: list[int]
    activations: list[float]


@dataclass(frozen=True)
class Tested:
    """A latent on a text of one's own."""

    windows: list[Window]
    """In order; a text that is longer than a sequence of the training has several."""
    texts: dict[int, str]
    max_activation: float


class Text(BaseModel):
    """What to read."""

    text: Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)]


class Wording(BaseModel):
    """A label or note to write; what is missing stays."""

    label: Annotated[str, Field(max_length=LONGEST["label"])] | None = None
    note: Annotated[str, Field(max_length=LONGEST["note"])] | None = None


class Written(BaseModel):
    """A latent's label and note after a change."""

    written: Label
    history: list[Change]


@router.get("/runs/{run}/latents/{latent}.json", operation_id="latent")
def latent(
    run: str,
    latent: LatentId,
    library: Shelves,
    context: Annotated[Literal["5", "12", "40", "whole"], Query()] = "12",
) -> LatentPage:
    """One latent; ``context``: tokens to each side of an example's peak."""
    check_latent(library, run, latent)
    index, notes = library.index(run), library.notes(run)
    length = index.manifest["context"]
    reach = length if context == "whole" else int(context)
    record = index.record(latent, reach=reach)
    vocabulary = index.vocabulary()
    return LatentPage(
        run=facts_of(library, run),
        latent=record,
        texts={token: vocabulary[token] for token in shown_tokens(record)},
        reach=reach,
        context=length,
        n_latents=len(index),
        n_tokens=index.manifest["n_rows"],
        flags=flags_of(record.density),
        others=others_of(index, notes, record),
        written=notes.label(latent),
        history=notes.history(latent),
        lists={one.name: latent in one.latents for one in notes.lists()},
    )


@router.get("/runs/{run}/latents/{latent}", include_in_schema=False)
def latent_page(run: str, latent: str) -> HTMLResponse:
    return page("latent_page", f"Latent {latent} · {run}", styles=("latent",))


@router.post("/runs/{run}/latents/{latent}/test", operation_id="test_latent")
def test(run: str, latent: LatentId, asked: Text, library: Shelves) -> Tested:
    """The latent's activation on each token of a text, by the model itself."""
    check_latent(library, run, latent)
    loaded = library.loaded(run)
    with library.busy:
        read = windows(loaded, asked.text)
        found = [activations(loaded, batch, latent) for batch in read]
    pairs = [
        pair for batch, values in zip(read, found, strict=True) for pair in zip(batch.token_ids, values, strict=True)
    ]
    parts = [Window(tokens.tolist(), [float(f"{a:.5g}") for a in values.tolist()]) for tokens, values in pairs]
    ids = sorted({token for part in parts for token in part.token_ids})
    texts = dict(zip(ids, loaded.texts(ids), strict=True))
    return Tested(parts, texts, max((max(part.activations) for part in parts), default=0.0))


@router.put("/runs/{run}/latents/{latent}/label", operation_id="label_latent")
def label(run: str, latent: LatentId, wording: Wording, library: Shelves) -> Written:
    """Write a label or a note."""
    check_latent(library, run, latent)
    notes = library.notes(run)
    written = notes.write(latent, label=wording.label, note=wording.note)
    return Written(written=written, history=notes.history(latent))


def check_latent(library: Library, run: str, latent: int) -> None:
    """Raise ``HTTPException`` 404 where the run's index has no such latent."""
    n_latents = len(library.index(run))
    if latent >= n_latents:
        raise HTTPException(404, f"there is no latent {latent}; this coder has latents 0 to {n_latents - 1}")


def others_of(index: LatentIndex, notes: Notes, record: LatentRecord) -> dict[int, Other]:
    """How the partners of a latent, and those similar to it, are called."""
    ids = sorted({other.latent for other in (*record.partners, *record.similar)})
    rows, _ = index.rows(TableQuery(among=ids, limit=MOST_ROWS))
    labels = notes.labels()
    return {row.latent: Other(labels.get(row.latent, ""), row.peaks) for row in rows}
