"""The page of steering: a text that goes on twice, as the model has it and with latents changed, as it is written."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import Field, TypeAdapter, ValidationError

from unweave.errors import UserError
from unweave.storage.latent_table import TableRow
from unweave.storage.run_facts import RunFacts
from unweave.web.latent import check_latent
from unweave.web.library import Shelves
from unweave.web.prompt import named
from unweave.web.runs import facts_of
from unweave.web.shell import page
from unweave.web.steer_events import MOST_LATENTS, Chosen, Event, ProblemEvent, Settings, SteerBody, written

router = APIRouter()
_LINE = TypeAdapter(Event)
_LINES = {
    "schema": {"type": "string"},
    "example": '{"kind":"token","side":"steered","token_id":7,"text":" a","probability":0.3}',
}


class SteerQuery(Settings):
    """The same in an address."""

    steer: Annotated[list[str], Field(max_length=MOST_LATENTS, default_factory=list)]
    """latent:mode:strength:unit each, such as 123:add:2:max; what is missing at the end has its default."""


@dataclass(frozen=True)
class SteerPage:
    """What is asked for, and what the index says of its latents."""

    run: RunFacts
    problem: str
    """Why this coder cannot steer, or nothing."""
    settings: Settings
    latents: list[Chosen]
    rows: dict[int, TableRow]
    labels: dict[int, str]


@router.get("/runs/{run}/steer.json", operation_id="steer")
def steer(run: str, library: Shelves, asked: Annotated[SteerQuery, Query()]) -> SteerPage:
    """What an address asks for, read but not yet run."""
    latents = [_parsed(text) for text in asked.steer]
    for one in latents:
        check_latent(library, run, one.latent)
    rows, labels = named(library, run, [one.latent for one in latents])
    settings = Settings(**{name: getattr(asked, name) for name in Settings.model_fields})
    facts = facts_of(library, run)
    return SteerPage(facts, _problem(facts), settings, latents, rows, labels)


@router.get("/runs/{run}/steer", include_in_schema=False)
def steer_page(run: str) -> HTMLResponse:
    return page("steer_page", f"Steer · {run}", styles=("steer",))


@router.post("/runs/{run}/steer.json", operation_id="steer_text")
def steer_text(run: str, library: Shelves, asked: SteerBody) -> list[Event]:
    """Both texts when they are whole: the lines of the stream as one list."""
    return list(written(library, run, asked))


@router.post(
    "/runs/{run}/steer",
    operation_id="steer_stream",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": _LINES}, "description": "A line of JSON for each event."}},
)
def steer_stream(run: str, library: Shelves, asked: SteerBody) -> StreamingResponse:
    """Both texts while they are written: a line of JSON for each event, as ``steer_text`` describes them."""
    events = written(library, run, asked)
    first = next(events)  # what is wrong with the request is said before the answer begins
    lines = (_LINE.dump_json(event) + b"\n" for event in _telling(itertools.chain([first], events)))
    return StreamingResponse(lines, media_type="application/x-ndjson", headers={"cache-control": "no-store"})


def _problem(facts: RunFacts) -> str:
    if facts.writes or len(facts.reads) > 1:
        written = ", ".join(facts.writes or facts.reads)
        read = ", ".join(facts.reads)
        return f"steering needs a coder that writes the one site it reads; this one reads {read} and writes {written}"
    return ""


def _parsed(text: str) -> Chosen:
    parts = dict(zip(("latent", "mode", "strength", "unit"), text.split(":"), strict=False))
    try:
        if text.count(":") > 3:
            raise ValueError(text)
        return Chosen.model_validate({name: part for name, part in parts.items() if part})
    except ValueError as error:
        is_known = isinstance(error, ValidationError)
        came = "; ".join(one["msg"] for one in error.errors()) if is_known else "too many parts"
        raise UserError(f"what is steered is written latent:mode:strength:unit, got {text!r} ({came})") from error


def _telling(events: Iterator[Event]) -> Iterator[Event]:
    """The events, and as the last one what stopped them."""
    try:
        yield from events
    except UserError as error:
        yield ProblemEvent("problem", " ".join(str(error).split()))
