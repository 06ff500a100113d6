"""The parts of a sweep's page below its first charts: lines by one number, laws, families and tracks of latents."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from unweave.analysis.families import Branch
from unweave.analysis.pareto import Spread
from unweave.analysis.swept import Chains, FamilyChain, FittedLaw, Frontiers, Track, TrackChain, kept_start
from unweave.metrics import Definition
from unweave.pages.data_script import compact
from unweave.pages.fragments import figure

_NO_VALUE = '<span title="no coder is on one of the sides">–</span>'
_FORMULAS = {
    "joint": "L(n, k) = exp(α + β<sub>k</sub> log k + β<sub>n</sub> log n + γ log k log n) + exp(ζ + η log k)",
    "compute": "L(C) = L<sub>∞</sub> + a C<sup>−b</sup>",
}


def frontier_tables(found: Frontiers, titles: Mapping[str, Definition], known: Mapping[str, Definition]) -> str:
    """A table for each figure: lines by the area under their frontier, and at equal sparsity; the best is marked."""
    return "\n".join(_frontier_table(titles[name].title, lines, known) for name, lines in found.figures.items())


def law_sections(laws: Sequence[FittedLaw], known: Mapping[str, Definition]) -> str:
    """A chart for each law, with what it is worth."""
    parts = []
    for number, law in enumerate(laws):
        facts = "".join(_fact(known[name], value) for name, value in law.figures.items() if value == value)
        parts.append(
            f'<figure class="card chart"><figcaption><strong>{escape(law.group)}</strong></figcaption>'
            f'<div class="law"><div id="law-{number}"></div>'
            f'<div><p class="formula">{_FORMULAS[law.law.name]}</p><dl class="beside">{facts}</dl></div></div></figure>'
        )
    return "\n".join(parts)


def family_section(
    families: Sequence[FamilyChain], labels: Mapping[str, Mapping[int, str]], known: Mapping[str, Definition]
) -> str:
    """What becomes of latents at every step, and the largest families of the last chain as boxes."""
    rows = [
        (f"{chain.group}: {chain.sizes[step]:,} → {chain.sizes[step + 1]:,}", figures)
        for chain in families
        for step, figures in enumerate(chain.figures)
    ]
    drawn = next((chain for chain in reversed(families) if chain.largest), None)
    figures = [of_step for chain in families for of_step in chain.figures]
    return _warning(figures) + _table("Step to a wider coder", rows, known) + (_drawn(drawn, labels) if drawn else "")


def track_section(tracks: Sequence[TrackChain], labels: Mapping[str, Mapping[int, str]], known: Mapping) -> str:
    """How far latents are followed, and those that are found in all layers most surely."""
    table = _warning([chain.figures for chain in tracks])
    table += _table("Chain of layers", [(chain.group, chain.figures) for chain in tracks], known)
    chart = '<figure class="card chart"><figcaption><strong>Latents of the first layer that are still found</strong>'
    chart += '</figcaption><div id="tracks"></div></figure>'
    chain = next((chain for chain in tracks if chain.strongest), None)
    if chain is None:
        return table + chart
    headings = "".join(f'<th scope="col">{escape(site)}</th>' for site in chain.sites)
    rows = "\n".join(_track_row(chain, track, labels) for track in chain.strongest)
    return (
        f"{table}{chart}<h3>The surest tracks of {escape(chain.group)}</h3>"
        f'<div class="scroller card"><table class="figures numbers"><thead><tr>{headings}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def chain_data(chains: Chains) -> dict[str, Any]:
    """What the page's script draws of laws and tracks."""
    return {
        "laws": [_law(law) for law in chains.laws],
        "tracks": [
            {"name": chain.group, "sites": chain.sites, "followed": [compact(share) for share in chain.followed]}
            for chain in chains.tracks
        ],
    }


def latent_address(coder: str, latent: int) -> str:
    """Of a latent's page in the report of one of the sweep's coders."""
    return f"../coders/{quote(coder)}/report/latent.html?latent={latent}"


def heading(definition: Definition) -> str:
    """The head of a column that says what stands in it when one points at it."""
    meaning = escape(f"{definition.meaning} Usual: {definition.good}.", quote=True)
    return f'<th scope="col" class="value"><abbr title="{meaning}">{escape(definition.title)}</abbr></th>'


def _frontier_table(
    title: str, lines: Mapping[str, Mapping[str, Spread | None]], known: Mapping[str, Definition]
) -> str:
    columns = list(next(iter(lines.values())))
    best = {name: max((_mean(figures[name]) for figures in lines.values()), default=0.0) for name in columns}
    rows = []
    for line, figures in sorted(lines.items(), key=lambda item: -_mean(item[1]["frontier_hypervolume"])):
        cells = [_frontier_cell(name, figures[name], best[name], several=len(lines) > 1) for name in columns]
        rows.append(f'<tr><th scope="row">{escape(line)}</th>{"".join(cells)}</tr>')
    headings = "".join(heading(known[name]) if name in known else _at_l0(name) for name in columns)
    return (
        f'<h3>{escape(title)}</h3><div class="scroller card"><table class="figures numbers"><thead><tr>'
        f'<th scope="col">Line</th>{headings}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _mean(spread: Spread | None) -> float:
    return -math.inf if spread is None else spread.mean


def _frontier_cell(name: str, spread: Spread | None, best: float, *, several: bool) -> str:
    if spread is None:
        return f'<td class="value">{_NO_VALUE}</td>'
    mark = " best" if several and spread.mean == best and name != "frontier_points" else ""
    error = f'<span class="error">± {spread.error:.1g}</span>' if spread.error else ""
    bar = ""
    if name == "frontier_hypervolume":
        bar = f'<span class="area" style="width:{100 * spread.mean / best if best > 0 else 0:.1f}%"></span>'
    return f'<td class="value{mark}">{figure(name, spread.mean)}{error}{bar}</td>'


def _at_l0(name: str) -> str:
    return f'<th scope="col" class="value">At {escape(name.rpartition("_")[2])} active latents</th>'


def _table(first: str, rows: Sequence[tuple[str, Mapping[str, float]]], known: Mapping[str, Definition]) -> str:
    columns = list(rows[0][1])
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f'<td class="value">{_shown(column, figures[column])}</td>' for column in columns)
        + "</tr>"
        for name, figures in rows
    )
    headings = "".join(heading(known[column]) for column in columns)
    return (
        '<div class="scroller card"><table class="figures numbers"><thead><tr>'
        f'<th scope="col">{escape(first)}</th>{headings}'
        f"</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _shown(name: str, value: float) -> str:
    share = name.endswith("_share") or name in ("family_orphans", "family_ended")
    return f"{100 * value:.3g} %" if share and value == value else figure(name, value)


def _fact(definition: Definition, value: float) -> str:
    title = escape(definition.meaning, quote=True)
    return f'<div><dt><abbr title="{title}">{escape(definition.title)}</abbr></dt><dd>{value:.3g}</dd></div>'


def _track_row(chain: TrackChain, track: Track, labels: Mapping[str, Mapping[int, str]]) -> str:
    cells = []
    for coder, latent, strength in zip(chain.coders, track.latents, track.strengths, strict=True):
        cosine = "" if latent == track.latents[0] and not cells else f'<span class="error">cosine {strength:.2f}</span>'
        cells.append(f"<td>{_named(labels, coder, latent)}{cosine}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _law(law: FittedLaw) -> dict[str, Any]:
    settings: dict[str, dict[str, list]] = {}
    for point in law.points:
        own = settings.setdefault(point.setting, {"n": [], "loss": [], "l0": []})
        for name, value in (("n", point.run.n_latents), ("loss", point.run.loss), ("l0", point.run.k)):
            own[name].append(compact(value))
    curves = {name: {"n": [*map(compact, n)], "loss": [*map(compact, y)]} for name, (n, y) in law.curves.items()}
    return {"settings": settings, "curves": curves}


def _drawn(chain: FamilyChain, labels: Mapping[str, Mapping[int, str]]) -> str:
    """Families from left to right, the narrowest coder first; darker boxes are more alike to their parent."""
    sizes = "".join(f"<span>{size:,} latents</span>" for size in chain.sizes)
    branches = "".join(_branch(chain, labels, branch) for branch in chain.largest)
    return (
        '<figure class="card chart">'
        f"<figcaption><strong>The largest families</strong> of {escape(chain.group)}</figcaption>"
        f'<div class="families"><div class="widths">{sizes}</div>{branches}</div></figure>'
    )


def _branch(chain: FamilyChain, labels: Mapping[str, Mapping[int, str]], branch: Branch) -> str:
    children = "".join(_branch(chain, labels, child) for child in branch.children)
    rest = len(chain.sizes) - 1 - branch.level
    beside = f'<div class="children" style="flex:{rest}">{children}</div>' if rest else ""
    heat = 100 * min(1.0, max(0.0, (branch.strength - 0.6) / 0.4))
    hint = "" if branch.level == 0 else f' title="cosine {branch.strength:.2f} to its parent"'
    named = _named(labels, chain.coders[branch.level], branch.latent)
    return f'<div class="branch"><div class="box" style="--heat:{heat:.0f}%"{hint}>{named}</div>{beside}</div>'


def _named(labels: Mapping[str, Mapping[int, str]], coder: str, latent: int) -> str:
    """A latent with its token, which leads to its page where there is one."""
    label = _label(labels, coder, latent)
    named = f'{latent} <span class="chip">{escape(label)}</span>' if label else f"latent {latent}"
    return f'<a href="{escape(latent_address(coder, latent))}">{named}</a>' if coder in labels else named


def _warning(figures: Sequence[Mapping[str, float]]) -> str:
    said = kept_start(figures)
    return f'<p class="notice">{escape(said)}</p>' if said else ""


def _label(labels: Mapping[str, Mapping[int, str]], coder: str, latent: int) -> str:
    """The token on which a latent fires most strongly, its white space to be seen; empty where that is not known."""
    if coder not in labels:
        return ""
    token = labels[coder][latent]
    return token.replace("\n", "↵").replace("\t", "⇥").replace(" ", "␣") or "never fires"
