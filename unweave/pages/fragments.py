"""Pieces of HTML that need no script: facts, findings, and the tables of figures; all text is escaped."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from unweave.analysis.doctor import Finding
from unweave.metrics import Definition

_MARKS = {"good": ("✓", "Good"), "warning": ("!", "Look"), "problem": ("✕", "Problem")}
_HEADLINES = ("explained_variance", "l0", "loss_recovered_mean", "dead_share")
_LADDER = {
    "ce_clean": "the model's own activations",
    "ce_spliced": "the reconstruction",
    "ce_mean_ablated": "the mean row",
    "ce_zero_ablated": "zeros",
}


def facts_list(facts: Mapping[str, str]) -> str:
    """The head of the page."""
    return "\n".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in facts.items())


def findings_list(findings: Sequence[Finding]) -> str:
    """What the doctor says; the level is told by a mark and a word, not by colour alone."""
    if not findings:
        return '<li class="finding"><p>No checks were made.</p></li>'
    items = []
    for finding in findings:
        mark, word = _MARKS[finding.level]
        items.append(
            f'<li class="finding {finding.level}"><span class="mark" aria-hidden="true">{mark}</span>'
            f'<div><h3><span class="level">{word}</span> {escape(finding.title)}</h3>'
            f"<p>{escape(finding.advice)}</p></div></li>"
        )
    return "\n".join(items)


def headline_tiles(results: Mapping[str, float | int], definitions: Mapping[str, Definition]) -> str:
    """The few figures that everybody asks for first."""
    tiles = []
    for name in _HEADLINES:
        if name in results and name in definitions:
            title, good = definitions[name].title, definitions[name].good.split(";")[0]
            tiles.append(
                f'<div class="tile"><dt>{escape(title)}</dt><dd><strong>{figure(name, results[name])}</strong>'
                f"<span>usual: {escape(good)}</span></dd></div>"
            )
    return "\n".join(tiles)


def figure_rows(
    results: Mapping[str, float | int], errors: Mapping[str, float], definitions: Mapping[str, Definition]
) -> str:
    """A table row for each figure: title, value with its standard error, meaning, what is usual."""
    rows = []
    for name, value in results.items():
        known = definitions.get(name)
        title, meaning, good = (known.title, known.meaning, known.good) if known else (name, "", "")
        shown = figure(name, value) + _error(name, errors)
        rows.append(
            f'<tr><th scope="row">{escape(title)}</th><td class="value">{shown}</td>'
            f'<td>{escape(meaning)}</td><td class="good-range">{escape(good)}</td></tr>'
        )
    return "\n".join(rows)


def _error(name: str, errors: Mapping[str, float]) -> str:
    error = errors.get(name, math.nan)
    return f'<span class="error">± {figure(name, error)}</span>' if math.isfinite(error) else ""


def loss_ladder(results: Mapping[str, float | int]) -> str:
    """Bars of the model's loss by what the site holds; empty unless the clean and the spliced loss were measured."""
    losses = {name: results[name] for name in _LADDER if math.isfinite(results.get(name, math.nan))}
    if "ce_clean" not in losses or "ce_spliced" not in losses or max(losses.values()) <= 0:
        return ""
    longest = max(losses.values())
    bars = "\n".join(
        f'<li class="{name}"><span class="label">{_LADDER[name]}</span><span class="track">'
        f'<span class="bar" style="width:{100 * max(0.0, loss) / longest:.2f}%"></span></span>'
        f'<span class="number">{loss:.3f}</span></li>'
        for name, loss in losses.items()
    )
    return (
        '<figure class="ladder"><figcaption>Loss of the model, in nats per token, when the site holds</figcaption>'
        f"<ul>\n{bars}\n</ul></figure>"
    )


def census(n_latents: int, n_dead: int, n_dense: int) -> str:
    """What the caption of the histogram says of the latents that it does not draw, or draws otherwise."""
    dead = (
        f"<strong>{n_dead:,} of {n_latents:,} latents never fired</strong> and are not drawn"
        if n_dead
        else f"<strong>Each of the {n_latents:,} latents fired</strong> at least once"
    )
    dense = f"{n_dense:,} dense (on more than 10 % of tokens) are drawn hatched" if n_dense else "none is dense"
    return f"{dead}; {dense}."


def figure(name: str, value: float | int) -> str:
    """A figure as people read it: shares as percentages, others to four significant digits."""
    if not math.isfinite(value):
        return '<span title="not a finite number">undefined</span>'
    if name.endswith("_share"):
        return f"{100 * value:.3g} %"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
