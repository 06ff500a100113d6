"""Latents in a notebook: what ends a cell shows itself as in the app, in a frame that asks no server and no network."""

import json
from dataclasses import asdict, dataclass
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from pydantic import TypeAdapter

from unweave.latent_record import Example, LatentRecord
from unweave.pages.bundle import bundle
from unweave.pages.data_script import script_json
from unweave.pages.latent_data import flags_of, shown_tokens
from unweave.pages.shell import modules, static_text
from unweave.storage.latent_table import COLUMNS, TableQuery, TableRow
from unweave.storage.notes import Notes
from unweave.storage.run_folder import Run
from unweave.web.latent import Other, others_of
from unweave.web.shell import STATIC

_STYLES = ("app.css", "latent.css")
_IN_TEXT = 5
"""Examples, and tokens of each kind, where only text is shown."""


@dataclass(frozen=True, repr=False)
class LatentView:
    """A latent that shows itself at the end of a cell."""

    record: LatentRecord
    texts: dict[int, str]
    """Text of each token id that is shown."""
    others: dict[int, Other]
    """How latents that are named are called."""
    n_tokens: int
    """Tokens on which it was measured."""
    height: int = 720
    """Of the frame, in pixels."""

    def __repr__(self) -> str:
        record = self.record
        if record.is_dead:
            return f"Latent {record.latent} never fires on {self.n_tokens:,} tokens."
        peaks = [self.texts[example.token_ids[example.peak]] for example in record.examples[:_IN_TEXT]]
        promoted = [self.texts[weight.token_id] for weight in record.promoted[:_IN_TEXT]]
        lines = [
            f"Latent {record.latent} fires on {record.density:.3%} of {self.n_tokens:,} tokens, "
            f"at most {record.max_activation:.3g}.",
            f"Peaks on {_listed(peaks)}; promotes {_listed(promoted)}.",
            *(f"{one.activations[one.peak]:8.3g}  {_marked(one, self.texts)}" for one in record.examples[:_IN_TEXT]),
        ]
        return "\n".join(lines)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}

    def _repr_html_(self) -> str:
        data = {
            "latent": json.loads(_adapter().dump_json(self.record)),
            "texts": self.texts,
            "others": {latent: asdict(other) for latent, other in self.others.items()},
            "flags": flags_of(self.record.density),
            "n_tokens": self.n_tokens,
        }
        return _frame("latent", data, f"Latent {self.record.latent}", self.height)


@dataclass(frozen=True, repr=False)
class TableView:
    """Rows of the table of latents that show themselves at the end of a cell."""

    rows: list[TableRow]
    found: int
    """Latents that fit what was asked for; the rows may be some of them."""
    labels: dict[int, str]
    """What people called them."""

    def __repr__(self) -> str:
        lines = [f"{'latent':>7} {'density':>9} {'max':>9}  peaks on"]
        for row in self.rows:
            words = f"{_listed(row.peaks)}  {self.labels.get(row.latent, '')}".rstrip()
            lines.append(f"{row.latent:>7} {row.density:>9.3%} {row.max:>9.3g}  {words}")
        return "\n".join([*lines, f"{len(self.rows):,} of {self.found:,} latents"])

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}

    def _repr_html_(self) -> str:
        data = {"rows": [asdict(row) for row in self.rows], "labels": self.labels, "columns": COLUMNS}
        return _frame("table", data, "Latents", min(720, 110 + 37 * len(self.rows)))


def show_latent(run: Run | str | Path, latent: int, *, reach: int = 12, height: int = 720) -> LatentView:
    """A latent of a run with an index, to be shown by a notebook.

    ``reach``: tokens to each side of an example's peak. Raises ``UserError`` where there is no index or no such latent.
    """
    run = run if isinstance(run, Run) else Run(run)
    index, vocabulary = run.latents, run.latents.vocabulary()
    record = index.record(latent, reach=reach)
    texts = {token: vocabulary[token] for token in shown_tokens(record)}
    return LatentView(
        record, texts, others_of(index, Notes(run.path / "notes.sqlite"), record), index.manifest["n_rows"], height
    )


def show_latents(run: Run | str | Path, **asked: Any) -> TableView:
    """Rows of a run's table of latents, to be shown by a notebook; ``asked`` are the settings of ``TableQuery``.

    Raises ``UserError`` where there is no index or no such column.
    """
    run = run if isinstance(run, Run) else Run(run)
    rows, found = run.latents.rows(TableQuery(**asked))
    labels = Notes(run.path / "notes.sqlite").labels()
    return TableView(rows, found, {row.latent: labels[row.latent] for row in rows if row.latent in labels})


def _frame(kind: str, data: dict[str, Any], title: str, height: int) -> str:
    """A document of its own, which may run its own scripts and nothing else."""
    template, styles, script = _document()
    shown = script_json({"kind": kind, "data": data})
    text = Template(template).substitute(title=escape(title), styles=styles, script=script, shown=shown)
    style = f"width: 100%; height: {height}px; border: 0; border-radius: 12px"
    return f'<iframe sandbox="allow-scripts" title="{escape(title)}" style="{style}" srcdoc="{escape(text)}"></iframe>'


@cache
def _document() -> tuple[str, str, str]:
    template, script = ((STATIC / f"notebook.{kind}").read_text("utf-8") for kind in ("html", "js"))
    styles = "\n".join(map(static_text, _STYLES))
    return template, styles, bundle("notebook.js", {**modules(), "notebook.js": script})


def _marked(example: Example, texts: dict[int, str]) -> str:
    """An example as text with its peak marked, on one line."""
    parts = [texts[token] for token in example.token_ids]
    parts[example.peak] = f"«{parts[example.peak]}»"
    return _plain("".join(parts))


def _listed(texts: list[str]) -> str:
    return ", ".join(f"'{_plain(text)}'" for text in dict.fromkeys(texts)) or "nothing"


def _plain(text: str) -> str:
    """With escapes for what a terminal would act on."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


@cache
def _adapter() -> Any:
    return TypeAdapter(LatentRecord)
