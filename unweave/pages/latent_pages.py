"""Latents as pages of a folder: the table of each run, and every latent, with their data beside them.

The app's own modules draw them; ``folder_api.js`` and ``folder_state.js`` stand in for the two that know a server. The
table of a run is one file, its records are in files of ``CHUNK`` latents that are loaded when one of them is looked at.
"""

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from unweave.latent_record import LatentRecord
from unweave.pages.data_script import data_script, packed_script
from unweave.pages.latent_data import FLAGS, row_of, shown_examples, shown_tokens
from unweave.pages.shell import FolderPage
from unweave.storage.latent_table import COLUMNS, TableRow
from unweave.storage.notes import Notes
from unweave.storage.run_facts import RunFacts

CHUNK = 32
"""Records of one file."""
RUNS_PAGE = FolderPage(file="index.html", name="runs", module="runs_page.js", title="Runs · unweave", data=("runs",))
LATENT_PAGES = (
    FolderPage(
        file="latents.html",
        name="latents",
        module="latents_page.js",
        title="Latents · unweave",
        data=("runs",),
    ),
    FolderPage(
        file="latent.html",
        name="latent",
        module="folder_latent.js",
        title="Latent · unweave",
        styles=("latent.css",),
        data=("runs",),
    ),
)


@dataclass(frozen=True, kw_only=True)
class ShownLatents:
    """Latents of one run."""

    facts: RunFacts
    """``path`` is how the run is called, ``name`` a part of addresses that is no other run's."""
    n_tokens: int
    """On which they were measured."""
    latents: Sequence[int]
    """Their numbers, in order; they need not be all."""
    records: Iterable[LatentRecord]
    """In the same order; each is asked for once."""
    vocabulary: Sequence[str]
    """Text of each token id, of those in the records that were asked for so far."""
    notes: Notes | None = None
    """What people wrote of them."""


def latent_files(runs: Sequence[ShownLatents]) -> Iterator[tuple[str, str]]:
    """Relative path and content of each file of data, made one by one, since there may be many large records."""
    facts = [asdict(replace(run.facts, problem="")) for run in runs]  # a problem may name places on this machine
    yield "data/runs.js", data_script("runs", {"root": "", "runs": facts})
    for run in runs:
        for name, content in _contents(run):
            path = f"{run.facts.name}/{name}"
            yield f"data/{path}.js", packed_script(path, content)


def address_names(names: Sequence[str]) -> list[str]:
    """For each name one that a folder may have on any system, and no other."""
    found: list[str] = []
    for text in names:
        name = unique = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip(".-") or "run"
        numbers = itertools.count(2)
        while unique.casefold() in (other.casefold() for other in found):
            unique = f"{name}-{next(numbers)}"
        found.append(unique)
    return found


def _contents(run: ShownLatents) -> Iterator[tuple[str, bytes]]:
    """Name and JSON of each file of a run; what is said of all records comes last."""
    rows: list[TableRow] = []
    tokens: set[int] = set()
    reach, records = 0, iter(run.records)
    for number in itertools.count():
        chunk = list(itertools.islice(records, CHUNK))
        if not chunk:
            break
        rows += [row_of(record, run.vocabulary) for record in chunk]
        tokens = tokens.union(*(shown_tokens(record) for record in chunk))
        reach = max(reach, *(_reach(record) for record in chunk))
        yield f"latents-{number:04d}", _chunks().dump_json(chunk)
    table = {
        "about": {"n_latents": len(run.latents), "n_tokens": run.n_tokens},
        "meanings": COLUMNS,
        "chunk": CHUNK,
        "flags": [[name, above, most] for name, (above, most) in FLAGS.items()],
        "columns": {name: [_plain(getattr(row, name)) for row in rows] for name in TableRow.__dataclass_fields__},
        "reach": reach,
        **_written(run),
    }
    yield "tokens", json.dumps({token: run.vocabulary[token] for token in sorted(tokens)}).encode()
    yield "table", json.dumps(table, allow_nan=False).encode()


def _written(run: ShownLatents) -> dict[str, Any]:
    """What people wrote of the latents."""
    if run.notes is None:
        return {"labels": {}, "notes": {}, "lists": {}}
    chosen = set(run.latents)
    labels = {latent: label for latent, label in run.notes.labels().items() if latent in chosen}
    notes = {latent: run.notes.label(latent).note for latent in run.notes.search("") if latent in chosen}
    lists = {one.name: [latent for latent in one.latents if latent in chosen] for one in run.notes.lists()}
    return {"labels": labels, "notes": {latent: note for latent, note in notes.items() if note}, "lists": lists}


def _plain(value: Any) -> Any:
    """None for a number that JSON does not have, as in the records."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _reach(record: LatentRecord) -> int:
    return max((max(one.peak, len(one.token_ids) - 1 - one.peak) for one in shown_examples(record)), default=0)


@cache
def _chunks() -> Any:
    return TypeAdapter(list[LatentRecord])
