"""Latents as pages that open from a folder with no network: those of the app, with their data beside them.

The app's own modules draw them, joined into one script a page; ``export_api.js`` and ``export_state.js`` stand in for
the two modules that know a server. The table of a run is one file, its records are in files of ``CHUNK`` latents that
are loaded when one of them is looked at.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from pydantic import TypeAdapter

from unweave.latent_record import LatentRecord
from unweave.pages.data_script import data_script, packed_script
from unweave.pipelines.export_sources import ExportConfig, LatentSource, Told
from unweave.storage.latent_table import COLUMNS, TableRow
from unweave.web.bundle import bundle
from unweave.web.latent import FLAGS, shown_tokens
from unweave.web.library import Library
from unweave.web.runs import RunFacts, facts_of
from unweave.web.shell import STATIC

CHUNK = 32
"""Records of one file."""
PAGES = {"runs": "runs_page.js", "latents": "latents_page.js", "latent": "export_latent.js"}
"""The module that draws each page."""
INSTEAD = {"api.js": "export_api.js", "state.js": "export_state.js"}
_FILES = {"runs": "index.html", "latents": "latents.html", "latent": "latent.html"}
_ASSETS = ("app.css", "latent.css", "icon.svg", "theme.js")
_SHOWN = 5
"""Tokens of each kind in a row of the table."""


def write_pages(sources: Sequence[LatentSource], folder: Path, config: ExportConfig, told: Told) -> None:
    """A folder whose ``index.html`` lists the runs; nothing in it needs a server."""
    for path, text in _page_files().items():
        _write(folder / path, text)
    names = _names(sources)
    total, done = sum(len(source.chosen) for source in sources), 0
    for source, name in zip(sources, names, strict=True):
        for n_written in _write_source(source, folder / "data" / name, name):
            told(done + n_written, total)
        done += len(source.chosen)
    facts = [asdict(_facts(source, name)) for source, name in zip(sources, names, strict=True)]
    _write(folder / "data" / "runs.js", data_script("runs", {"root": "", "runs": facts}))


def row_of(record: LatentRecord, vocabulary: Sequence[str]) -> TableRow:
    """A latent in the table, as the index has it there."""
    peaks = Counter(example.token_ids[example.peak] for example in record.examples).most_common(_SHOWN)
    token, rule = record.telling.get("token"), record.rule
    return TableRow(
        latent=record.latent,
        n_fires=record.n_fires,
        density=record.density,
        max=record.max_activation,
        mean=record.mean_activation,
        told=token.share if token else 0.0,
        f1=rule.f1 if rule else 0.0,
        similar=record.similar[0].cosine if record.similar else 0.0,
        jaccard=record.partners[0].jaccard if record.partners else 0.0,
        peaks=[vocabulary[token] for token, _ in peaks],
        promoted=[vocabulary[weight.token_id] for weight in record.promoted[:_SHOWN]],
        rule=["".join(vocabulary[token] for token in key) for key in rule.token_ids[:_SHOWN]] if rule else [],
    )


def _write_source(source: LatentSource, folder: Path, run: str) -> Iterator[int]:
    """Write the data of one run; tells after each file how many records are written."""
    rows: list[TableRow] = []
    tokens: set[int] = set()
    reach, records = 0, source.records()
    for number in itertools.count():
        chunk = list(itertools.islice(records, CHUNK))
        if not chunk:
            break
        rows += [row_of(record, source.vocabulary) for record in chunk]
        tokens = tokens.union(*(shown_tokens(record) for record in chunk))
        reach = max(reach, *(_reach(record) for record in chunk))
        name = f"latents-{number:04d}"
        _write(folder / f"{name}.js", packed_script(f"{run}/{name}", _records().dump_json(chunk)))
        yield len(rows)
    texts = {token: source.vocabulary[token] for token in sorted(tokens)}
    _write(folder / "tokens.js", packed_script(f"{run}/tokens", json.dumps(texts).encode()))
    table = {**_about(source), **_written(source), "columns": _columns(rows), "reach": reach}
    _write(folder / "table.js", packed_script(f"{run}/table", json.dumps(table).encode()))


def _about(source: LatentSource) -> dict[str, Any]:
    return {
        "about": {"n_latents": len(source.chosen), "n_tokens": source.n_tokens},
        "meanings": COLUMNS,
        "chunk": CHUNK,
        "flags": [[name, above, most] for name, (above, most) in FLAGS.items()],
    }


def _written(source: LatentSource) -> dict[str, Any]:
    """What people wrote of the latents."""
    if source.notes is None:
        return {"labels": {}, "notes": {}, "lists": {}}
    chosen = set(source.chosen)
    labels = {latent: label for latent, label in source.notes.labels().items() if latent in chosen}
    notes = {latent: source.notes.label(latent).note for latent in source.notes.search("") if latent in chosen}
    lists = {one.name: [latent for latent in one.latents if latent in chosen] for one in source.notes.lists()}
    return {"labels": labels, "notes": {latent: note for latent, note in notes.items() if note}, "lists": lists}


def _columns(rows: Sequence[TableRow]) -> dict[str, list[Any]]:
    return {name: [getattr(row, name) for row in rows] for name in TableRow.__dataclass_fields__}


def _reach(record: LatentRecord) -> int:
    examples = [*record.examples, *(example for group in record.groups for example in group.examples)]
    return max((max(one.peak, len(one.token_ids) - 1 - one.peak) for one in examples), default=0)


def _facts(source: LatentSource, name: str) -> RunFacts:
    if not (source.path / "config.toml").is_file():
        about = RunFacts(name=name, path=source.name, model=source.model, n_latents=source.n_latents)
        return replace(about, reads=(source.site,), index="ready")
    facts = facts_of(Library(source.path), source.path.resolve().name)
    return replace(facts, name=name, path=source.name, problem="")  # which may name places on this machine


def _names(sources: Sequence[LatentSource]) -> list[str]:
    """A name for each run that is a folder's on any system, and no other's."""
    names: list[str] = []
    for source in sources:
        name = unique = re.sub(r"[^A-Za-z0-9_.-]+", "-", source.name).strip(".-") or "run"
        numbers = itertools.count(2)
        while unique.casefold() in (other.casefold() for other in names):
            unique = f"{name}-{next(numbers)}"
        names.append(unique)
    return names


def _page_files() -> dict[str, str]:
    """Relative path to content of each file that is the same in every export."""
    sources = {file.name: file.read_text("utf-8") for file in STATIC.iterdir() if file.name.endswith(".js")}
    template = Template((STATIC / "export.html").read_text("utf-8"))
    pages = {_FILES[page]: template.substitute(page=page, title=page.capitalize()) for page in PAGES}
    scripts = {f"assets/{page}.js": bundle(module, sources, INSTEAD) for page, module in PAGES.items()}
    assets = {f"assets/{name}": (STATIC / name).read_text("utf-8") for name in _ASSETS}
    store = (files("unweave.pages") / "static" / "store.js").read_text("utf-8")
    return {**pages, **scripts, **assets, "assets/store.js": store}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@cache
def _records() -> Any:
    return TypeAdapter(list[LatentRecord])
