"""What was measured of a coder, ready to be drawn: each figure with its error, its floors and an axis for them.

The report of a run draws it as HTML, the web app as its JSON.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from unweave.metrics import CORE, Definition, metric_name
from unweave.pages.fragments import figure
from unweave.storage.results import Bins, Figures, Results, SuiteFigures, Suites

FLOORS = {
    "random": "directions drawn at random",
    "pca": "principal components",
    "identity": "each coordinate a latent",
}
"""Coders that have learned nothing about latents, in the order in which they are shown."""
GROUPS = {
    "reconstruction": "Reconstruction",
    "l0": "Active latents",
    "spliced_loss": "What the model makes of it",
    "density": "How often latents fire",
    "row_ratios": "Row by row",
    "kurtosis": "Kurtosis",
    "first_position": "First position",
    "outlying_rows": "Outlying rows",
}
"""Headings of the metrics of ``unweave.metrics``."""
_MARGIN = 0.04
"""Of an axis, beyond the outermost mark."""
_MOST_BINS = 60


@dataclass(frozen=True)
class Mark:
    """A value with its standard error."""

    value: float | None
    error: float | None


@dataclass(frozen=True)
class MeasuredFigure:
    """One figure of the run's coder and of its floors."""

    name: str
    title: str
    meaning: str
    good: str
    own: Mark
    floors: dict[str, Mark]
    low: float
    """Ends of an axis that holds all values with their errors."""
    high: float
    n_tokens: int
    """What it was measured on; examples for suites."""
    n_documents: int | None
    """None for suites."""


@dataclass(frozen=True)
class FigureGroup:
    """Figures under one heading."""

    title: str
    figures: list[MeasuredFigure]


@dataclass(frozen=True)
class Measurement:
    """All that was measured of one coder."""

    groups: list[FigureGroup]
    suites: list[FigureGroup]
    floors: dict[str, str]
    """What the floors are, of those that were measured."""
    floor_tokens: int
    """Tokens that the floors of ``groups`` were measured on, the first of those of the coder."""
    tokens_by_l0: list[int]
    """Number of tokens with 0, 1, 2, ... active latents."""
    latents_by_density: Bins
    measured_with: dict[str, str | int | float | bool]
    seeds: dict[str, int]
    n_tokens: int
    n_documents: int


def measurement(results: Results, suites: Suites, known: Mapping[str, Mapping[str, Definition]]) -> Measurement:
    """Results and suites with their definitions; ``known``: definitions by suite and figure."""
    floors = [name for name in FLOORS if name in results.floors]
    of_suites = [name for name in FLOORS if any(name in coders for coders in suites.values())]
    groups = [FigureGroup(GROUPS[metric_name(metric)], _core(results, metric.definitions, floors)) for metric in CORE]
    return Measurement(
        groups=[group for group in groups if group.figures],
        suites=[
            FigureGroup(suite.replace("_", " "), _suite(coders, known.get(suite, {})))
            for suite, coders in suites.items()
        ],
        floors={name: text for name, text in FLOORS.items() if name in (*floors, *of_suites)},
        floor_tokens=max((results.floors[name].n_tokens for name in floors), default=0),
        tokens_by_l0=results.distributions.tokens_by_l0,
        latents_by_density=results.distributions.latents_by_density,
        measured_with=results.measured_with,
        seeds=results.seeds,
        n_tokens=results.n_tokens,
        n_documents=results.n_documents,
    )


def l0_histogram(found: Measurement | None) -> dict[str, Any]:
    """Tokens by their active latents, in at most 60 bins of equal width from the fewest to the most."""
    counts = found.tokens_by_l0 if found else []
    seen = [n for n, count in enumerate(counts) if count]
    if not seen:
        return {"start": 0, "step": 1, "counts": []}
    first, last = seen[0], seen[-1]
    step = math.ceil((last + 1 - first) / _MOST_BINS)
    joined = [sum(counts[start : start + step]) for start in range(first, last + 1, step)]
    return {"start": first, "step": step, "counts": joined}


def measured_section(found: Measurement) -> str:
    """The section of a report; all but the histogram of L0 is drawn without a script."""
    suites = [] if not found.suites else ['<h3 class="suites">Suites</h3>', *map(_table, found.suites)]
    parts = [
        '<section aria-labelledby="measured">',
        '<h2 id="measured">Measured</h2>',
        f'<p class="note">{_basis(found)}</p>',
        _legend(found),
        *map(_table, found.groups),
        '<figure class="card chart large" id="l0-figure"><div id="l0-plot"></div>'
        "<figcaption>Tokens by the number of latents that are active on them.</figcaption></figure>",
        *suites,
        "</section>",
    ]
    return "\n".join(parts)


def _core(results: Results, definitions: Sequence[Definition], floors: Sequence[str]) -> list[MeasuredFigure]:
    found = []
    for known in definitions:
        if known.name in results.figures:
            basis = results.basis.get(known.name)
            own = _mark(known.name, results.figures, results.standard_errors)
            marks = {
                name: _mark(known.name, results.floors[name].figures, results.floors[name].standard_errors)
                for name in floors
            }
            on = results if basis is None else basis
            found.append(_figure(known, own, marks, on.n_tokens, on.n_documents))
    return found


def _suite(coders: Mapping[str, SuiteFigures], known: Mapping[str, Definition]) -> list[MeasuredFigure]:
    own = next((its for name, its in coders.items() if name not in FLOORS), None)
    if own is None:
        return []
    found = []
    for name in own.figures:
        definition = known.get(name, Definition(name, name.replace("_", " "), "", ""))
        marks = {
            floor: _mark(name, coders[floor].figures, coders[floor].standard_errors)
            for floor in FLOORS
            if floor in coders
        }
        found.append(_figure(definition, _mark(name, own.figures, own.standard_errors), marks, own.n, None))
    return found


def _figure(
    known: Definition, own: Mark, floors: dict[str, Mark], n_tokens: int, n_documents: int | None
) -> MeasuredFigure:
    low, high = _axis([own, *floors.values()])
    return MeasuredFigure(
        known.name, known.title, known.meaning, known.good, own, floors, low, high, n_tokens, n_documents
    )


def _mark(name: str, figures: Figures, errors: Figures) -> Mark:
    return Mark(finite(figures.get(name)), finite(errors.get(name)))


def finite(value: float | None) -> float | None:
    """None for what is no number."""
    return value if value is not None and math.isfinite(value) else None


def _axis(marks: Sequence[Mark]) -> tuple[float, float]:
    ends = [mark.value + sign * (mark.error or 0.0) for mark in marks if mark.value is not None for sign in (-1, 1)]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    margin = _MARGIN * (high - low) or 0.5 * abs(high) or 0.5
    return low - margin, high + margin


def _basis(found: Measurement) -> str:
    seeds = {f"seed of {name}": seed for name, seed in found.seeds.items()}
    facts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in (found.measured_with | seeds).items())
    floors = f" Floors are measured on the first {found.floor_tokens:,} of them." if found.floor_tokens else ""
    return (
        f"Measured on {found.n_tokens:,} tokens of {found.n_documents:,} documents, with {escape(facts)}.{floors} "
        "Errors are standard errors, by leaving out one block of documents at a time. "
        "Each figure has an axis of its own; point at it for its meaning."
    )


def _legend(found: Measurement) -> str:
    names = {"own": "this coder"} | found.floors
    items = "".join(
        f'<li><span class="dot {name}"></span>{"" if name == "own" else f"<b>{name}</b> "}{escape(text)}</li>'
        for name, text in names.items()
    )
    return f'<ul class="floors-legend">{items}</ul>'


def _table(group: FigureGroup) -> str:
    rows = "\n".join(_row(one) for one in group.figures)
    return f'<h4 class="measured-head">{escape(group.title)}</h4>\n<ul class="measured card">\n{rows}\n</ul>'


def _row(one: MeasuredFigure) -> str:
    usual = f"Usual: {one.good}." if one.good else ""
    about = " ".join(part for part in (one.meaning, usual, _measured_on(one)) if part)
    error = f'<span class="error">± {figure(one.name, one.own.error)}</span>' if one.own.error is not None else ""
    marks = [_dot(one, name, mark) for name, mark in (*one.floors.items(), ("own", one.own)) if mark.value is not None]
    said = "; ".join(f"{name} {mark.value:.4g}" for name, mark in one.floors.items() if mark.value is not None)
    value = figure(one.name, math.nan if one.own.value is None else one.own.value)
    label = escape(f"{one.title}: {one.own.value}; {said}")
    return (
        f'<li data-name="{escape(one.name)}" title="{escape(about)}"><span class="title">{escape(one.title)}</span>'
        f'<span class="value">{value}{error}</span>'
        f'<span class="axis" role="img" aria-label="{label}">{"".join(marks)}</span></li>'
    )


def _dot(one: MeasuredFigure, name: str, mark: Mark) -> str:
    assert mark.value is not None
    span = one.high - one.low
    at = 100 * (mark.value - one.low) / span
    wide = 200 * (mark.error or 0.0) / span
    told = escape(f"{name}: {mark.value:.4g}" + (f" ± {mark.error:.2g}" if mark.error is not None else ""))
    bar = (
        f'<span class="whisker {name}" style="left:{at - wide / 2:.2f}%;width:{wide:.2f}%"></span>' if wide > 0 else ""
    )
    return f'{bar}<span class="dot {name}" style="left:{at:.2f}%" title="{told}"></span>'


def _measured_on(one: MeasuredFigure) -> str:
    if one.n_documents is None:
        return f"Measured on {one.n_tokens:,} examples."
    return f"Measured on {one.n_tokens:,} tokens of {one.n_documents:,} documents."
