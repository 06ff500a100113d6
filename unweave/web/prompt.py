"""The page of a prompt: the latents of each of its tokens, those of all of it, and what the model expects next."""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from unweave.analysis.prompt_latents import Fired, Order, Standing, Usual, lane, standing, strongest_share
from unweave.errors import UserError
from unweave.storage.index_folder import LatentIndex
from unweave.storage.latent_table import MOST_ROWS, TableQuery, TableRow
from unweave.storage.run_facts import RunFacts
from unweave.web.latent import check_latent
from unweave.web.library import Library, Loaded, Shelves
from unweave.web.prompt_reading import Likely, Reading, Readings, Shelf, predicted
from unweave.web.reading import LONGEST_TEXT
from unweave.web.runs import facts_of
from unweave.web.shell import page

router = APIRouter()
PAGE = 2048
"""Tokens that are shown at once."""
MOST_PINNED = 6
_TABLE = 40
"""Latents of the table."""
_AT_TOKEN = 15
_LIKELY = 5
_BINS = 192
"""Of a latent's lane along the text."""
_LatentId = Annotated[int, Field(ge=0, lt=2**31)]


class Prompt(BaseModel):
    """A text, and what to show of it."""

    text: Annotated[str, Field(max_length=LONGEST_TEXT)] = ""
    token: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """The place of the token to look at."""
    start: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """A place of the stretch of 2,048 tokens to show."""
    pin: Annotated[list[_LatentId], Field(max_length=MOST_PINNED)] = []
    """Latents to show on every token."""
    density: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    """Leave out latents that fire on a larger share of tokens."""
    special: bool = False
    """Show special tokens."""
    sort: Order = "max"


@dataclass(frozen=True)
class PromptLatent:
    """A latent over the whole text."""

    latent: int
    max: float
    share: float
    """Of its largest activation in the index."""
    sum: float
    n_fires: int
    peak: int
    """The place at which it is strongest."""
    peak_id: int
    """The token there."""
    surprise: float
    """Its share over its density."""
    lane: list[float]
    """Its activations along the text in bins, over the largest of them."""


@dataclass(frozen=True)
class ActiveLatent:
    """A latent at one token."""

    latent: int
    activation: float
    share: float


@dataclass(frozen=True)
class SelectedToken:
    """The token that is looked at."""

    place: int
    token_id: int
    n_active: int
    """Latents that fire on it."""
    latents: list[ActiveLatent]
    """The strongest, by their share."""
    likely: list[Likely]
    """The tokens that the model expects next."""
    comes: Likely | None
    """The token that does come next; None at the end of a window."""
    rank: int
    """Tokens that the model expects more than that one."""


@dataclass(frozen=True)
class Stretch:
    """The tokens that are shown."""

    start: int
    places: list[int]
    token_ids: list[int]
    shares: list[float]
    """The largest share that any latent has on each token."""


@dataclass(frozen=True)
class PromptPage:
    """A text and its latents."""

    run: RunFacts
    n_tokens: int
    """All of them, special tokens counted."""
    n_windows: int
    window: int
    """Tokens of every window but the last, which may have fewer; the model reads one at a time."""
    longest: int
    """Characters that a text may have."""
    page: int
    """Tokens that are shown at once."""
    stretch: Stretch
    found: int
    """Latents that fire, after the filters."""
    latents: list[PromptLatent]
    """The strongest of them, in the order asked for."""
    pinned: dict[int, list[float]]
    """Latent to its activations on the tokens shown."""
    selected: SelectedToken | None
    rows: dict[int, TableRow]
    """What the index says of each latent that is named."""
    labels: dict[int, str]
    texts: dict[int, str]
    """Text of each token id."""


@router.get("/runs/{run}/prompt.json", operation_id="prompt")
def prompt(run: str, library: Shelves, readings: Shelf, asked: Annotated[Prompt, Query()]) -> PromptPage:
    """A text and its latents; a text that is too long for an address can be sent by POST to the same page."""
    return _page_of(run, library, readings, asked)


@router.post("/runs/{run}/prompt", operation_id="read_prompt")
def read_prompt(run: str, library: Shelves, readings: Shelf, asked: Prompt) -> PromptPage:
    """The same for a text of any length up to 100,000 characters."""
    return _page_of(run, library, readings, asked)


@router.get("/runs/{run}/prompt", include_in_schema=False)
def prompt_page(run: str) -> HTMLResponse:
    return page("prompt_page", f"Prompt · {run}", styles=("prompt",))


def named(library: Library, run: str, latents: list[int]) -> tuple[dict[int, TableRow], dict[int, str]]:
    """What the index says of some latents, and the labels that some of them have."""
    wanted = sorted(set(latents))
    rows, _ = library.index(run).rows(TableQuery(among=wanted, limit=MOST_ROWS))
    labels = library.notes(run).labels()
    return {row.latent: row for row in rows}, {latent: labels[latent] for latent in wanted if latent in labels}


def usual(index: LatentIndex) -> Usual:
    """The largest activation and the density of every latent."""
    largest, density = (np.array(index.table.column(name)) for name in ("max", "density"))
    return Usual(largest, density, index.manifest["n_rows"])


def _page_of(run: str, library: Library, readings: Readings, asked: Prompt) -> PromptPage:
    index, pins = library.index(run), list(dict.fromkeys(asked.pin))
    for latent in pins:
        check_latent(library, run, latent)
    known = library.once(index, usual)
    if not asked.text:
        return _blank(run, library, pins)
    loaded = library.loaded(run)
    with library.busy:
        reading = readings.read(run, loaded, asked.text)
        kept = _kept(reading, known, asked)
        selected = None if asked.token is None else _selected(loaded, reading, kept, known, asked.token)
    stretch = _stretch(reading, kept, known, asked)
    table = _table(standing(kept, known), kept, known, asked.sort, reading)
    shown = [*pins, *(row.latent for row in table), *(one.latent for one in (selected.latents if selected else []))]
    rows, labels = named(library, run, shown)
    return PromptPage(
        run=facts_of(library, run),
        n_tokens=len(reading.token_ids),
        n_windows=-(-len(reading.token_ids) // reading.window),
        window=reading.window,
        longest=LONGEST_TEXT,
        page=PAGE,
        stretch=stretch,
        found=len(np.unique(kept.latents)),
        latents=table,
        pinned={
            latent: _rounded(reading.fired.along(latent, len(reading.token_ids))[stretch.places]) for latent in pins
        },
        selected=selected,
        rows=rows,
        labels=labels,
        texts=_texts(loaded, stretch, selected, table),
    )


def _blank(run: str, library: Library, pins: list[int]) -> PromptPage:
    rows, labels = named(library, run, pins)
    nothing = Stretch(0, [], [], [])
    facts = facts_of(library, run)
    return PromptPage(facts, 0, 0, 0, LONGEST_TEXT, PAGE, nothing, 0, [], {}, None, rows, labels, {})


def _kept(reading: Reading, known: Usual, asked: Prompt) -> Fired:
    fired = reading.fired
    keep = known.density_L[fired.latents] <= asked.density
    return fired.where(keep if asked.special else keep & ~reading.is_special[fired.places])


def _stretch(reading: Reading, kept: Fired, known: Usual, asked: Prompt) -> Stretch:
    n = len(reading.token_ids)
    start = min(asked.start, n - 1) // PAGE * PAGE
    places = np.arange(start, min(start + PAGE, n))
    places = places if asked.special else places[~reading.is_special[places]]
    shares = strongest_share(kept, known, n)[places]
    return Stretch(start, places.tolist(), reading.token_ids[places].tolist(), _rounded(shares))


def _table(all_: Standing, kept: Fired, known: Usual, sort: Order, reading: Reading) -> list[PromptLatent]:
    shares = known.shares(all_.latents, all_.max)
    return [
        PromptLatent(
            latent=int(all_.latents[i]),
            max=_short(all_.max[i]),
            share=_short(shares[i]),
            sum=_short(all_.sum[i]),
            n_fires=int(all_.n_fires[i]),
            peak=int(all_.peaks[i]),
            peak_id=int(reading.token_ids[all_.peaks[i]]),
            surprise=_short(all_.surprise[i]),
            lane=_rounded(
                np.array(lane(kept.along(int(all_.latents[i]), len(reading.token_ids)), _BINS)) / all_.max[i]
            ),
        )
        for i in all_.order(sort)[:_TABLE]
    ]


def _selected(loaded: Loaded, reading: Reading, kept: Fired, known: Usual, place: int) -> SelectedToken:
    if place >= len(reading.token_ids):
        raise UserError(f"there is no token {place:,}; this text has tokens 0 to {len(reading.token_ids) - 1:,}")
    latents, values = kept.at(place)
    shares = known.shares(latents, values)
    strongest = np.argsort(-shares, kind="stable")[:_AT_TOKEN]
    active = [ActiveLatent(int(latents[i]), _short(values[i]), _short(shares[i])) for i in strongest]
    likely, comes, rank = predicted(loaded, reading, place, _LIKELY)
    return SelectedToken(place, int(reading.token_ids[place]), len(latents), active, likely, comes, rank)


def _texts(
    loaded: Loaded, stretch: Stretch, selected: SelectedToken | None, table: list[PromptLatent]
) -> dict[int, str]:
    ids = {*stretch.token_ids, *(one.peak_id for one in table)}
    if selected is not None:
        ids |= {selected.token_id, *(one.token_id for one in [*selected.likely, selected.comes] if one is not None)}
    return dict(zip(sorted(ids), loaded.texts(sorted(ids)), strict=True))


def _short(value: Any) -> float:
    return float(f"{value:.5g}")


def _rounded(values: np.ndarray) -> list[float]:
    return [_short(value) if value else 0.0 for value in values.tolist()]
