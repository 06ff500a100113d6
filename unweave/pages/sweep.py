"""The pages of a sweep: what sparsity costs, coder by coder, as HTML, as a picture and as a table."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from unweave.analysis.definitions import definitions as comparisons
from unweave.analysis.pareto import SHOWN, ParetoLine, SweptCoder, pareto_lines
from unweave.analysis.swept import Chains, Frontiers, frontiers
from unweave.metrics import Definition
from unweave.pages.data_script import compact, data_script
from unweave.pages.fragments import facts_list, figure
from unweave.pages.shell import FolderPage, filled, page_files
from unweave.pages.sweep_sections import (
    chain_data,
    family_section,
    frontier_tables,
    heading,
    law_sections,
    track_section,
)

COLUMNS = ("l0", "explained_variance", "loss_recovered_mean", "ce_spliced", "kl", "dead_share", "dense_share")


def sweep_files(
    name: str,
    facts: Mapping[str, str],
    coders: Sequence[SweptCoder],
    chains: Chains,
    definitions: Mapping[str, Definition],
) -> dict[str, str]:
    """Relative path to content of each file; reports of the coders are expected in ``../coders/<name>/report``."""
    lines = pareto_lines(coders)
    found = frontiers(lines)
    texts = {
        "name": escape(name),
        "facts": facts_list(facts),
        "reference": _reference(found),
        "frontiers": frontier_tables(found, definitions, comparisons()),
        "chains": _chains(chains),
        "headings": "".join(heading(definitions[column]) for column in COLUMNS),
        "rows": "\n".join(_row(coder) for coder in coders),
    }
    page = FolderPage(
        file="index.html",
        name="sweep",
        module="sweep.js",
        title=f"{name} · unweave sweep",
        styles=("report.css", "sweep.css"),
        data=("sweep",),
        body=filled("sweep.html", texts),
        has_charts=True,
    )
    return {
        **page_files([page], home="Sweep"),
        "data/sweep.js": data_script("sweep", _drawn(lines, definitions) | {"chains": chain_data(chains)}),
        "sweep.csv": sweep_csv(coders),
        "sweep.json": sweep_json(coders, found, chains),
    }


def sweep_json(coders: Sequence[SweptCoder], found: Frontiers, chains: Chains) -> str:
    """Everything that the page shows, as JSON."""
    told = {
        "coders": [coder._asdict() for coder in coders],
        "frontiers": {"reference_l0": found.reference_l0, "figures": found.figures},
        "laws": [
            {
                "group": law.group,
                "law": law.law.name,
                "parameters": law.parameters,
                "figures": law.figures,
                "points": [{"setting": point.setting, **point.run._asdict()} for point in law.points],
            }
            for law in chains.laws
        ],
        "families": [chain._asdict() for chain in chains.families],
        "tracks": [chain._asdict() for chain in chains.tracks],
        "labels": chains.labels,
        "notes": chains.notes,
    }
    return json.dumps(_plain(told), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def sweep_csv(coders: Sequence[SweptCoder]) -> str:
    """All figures of all coders, a line each."""
    names = list(dict.fromkeys(name for coder in coders for name in coder.figures))
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["coder", "line", "setting", *names])
    for coder in coders:
        table.writerow([coder.name, coder.line, coder.setting, *(coder.figures.get(name, "") for name in names)])
    return out.getvalue()


def sweep_png(name: str, lines: Sequence[ParetoLine], definitions: Mapping[str, Definition]) -> bytes:
    """The charts of the page as a picture."""
    from matplotlib.figure import Figure  # slow to import
    from matplotlib.ticker import FuncFormatter, NullFormatter

    picture = Figure(figsize=(11, 4.6), dpi=150, layout="constrained")
    for axes, shown in zip(picture.subplots(1, len(SHOWN)), SHOWN, strict=True):
        for line in lines:
            l0, values = ([point.figures[key] for point in line.points] for key in ("l0", shown))
            axes.errorbar(
                [spread.mean for spread in l0],
                [spread.mean for spread in values],
                xerr=[spread.error for spread in l0],
                yerr=[spread.error for spread in values],
                marker="o",
                markersize=4,
                linewidth=1.3,
                capsize=2,
                label=line.name,
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        ticks = sorted({round(point.figures["l0"].mean) for line in lines for point in line.points})
        if len(ticks) <= 8:
            axes.set_xticks(ticks)
        axes.set_xlabel("L0, active latents per token (log scale)")
        axes.set_title(definitions[shown].title, loc="left", fontsize=10)
        axes.grid(axis="y", linewidth=0.5, alpha=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    picture.suptitle(name, x=0.01, ha="left", fontsize=12)
    if len(lines) > 1:
        handles, labels = picture.axes[0].get_legend_handles_labels()
        picture.legend(handles, labels, loc="outside lower left", ncols=min(4, len(lines)), fontsize=8, frameon=False)
    out = io.BytesIO()
    picture.savefig(out, format="png")
    return out.getvalue()


def _row(coder: SweptCoder) -> str:
    link = f"../coders/{quote(coder.name)}/report/index.html"
    cells = "".join(f'<td class="value">{figure(name, coder.figures[name])}</td>' for name in COLUMNS)
    return f'<tr><th scope="row"><a href="{escape(link)}">{escape(coder.name)}</a></th>{cells}</tr>'


def _drawn(lines: Sequence[ParetoLine], definitions: Mapping[str, Definition]) -> dict:
    """What the page's script draws."""
    drawn = []
    for line in lines:
        spreads = {
            name: {
                part: [compact(getattr(point.figures[name], part)) for point in line.points]
                for part in ("mean", "error")
            }
            for name in ("l0", *SHOWN)
        }
        drawn.append({"name": line.name, "settings": [point.setting for point in line.points], **spreads})
    return {"lines": drawn, "figures": [{"name": name, "title": definitions[name].title} for name in SHOWN]}


def _reference(found: Frontiers) -> str:
    return (
        "The area counts all that some coder of the line is at least as good as, from 0, which the mean row reaches, "
        f"and {found.reference_l0:.0f} active latents, twice those of the densest coder. At equal sparsity a figure "
        "is between the coders on either side, linear in the logarithm of L0. Point at a heading for its meaning."
    )


def _chains(chains: Chains) -> str:
    """The sections for which the sweep has the coders, and in one line each why it has not."""
    known = comparisons()
    parts = []
    if chains.laws:
        note = "Points are coders, lines the law; a law is worth what it says of widths that it has not seen."
        parts.append(_section("laws", "How the loss falls with width", note, law_sections(chains.laws, known)))
    if chains.families:
        note = (
            "A latent of a wider coder has the nearest latent of the narrower one as its parent, over a cosine of 0.6. "
            "Boxes are latents, with the token on which they fire most strongly."
        )
        body = family_section(chains.families, chains.labels, known)
        parts.append(_section("family", "What latents split into", note, body))
    if chains.tracks:
        note = "Each latent is followed to its nearest in the next layer, as long as their cosine is over 0.5."
        body = track_section(chains.tracks, chains.labels, known)
        parts.append(_section("layers", "Latents through the layers", note, body))
    if chains.notes:
        notes = "".join(f"<li>{escape(note)}</li>" for note in chains.notes)
        parts.append(_section("missing", "What this sweep cannot say", "", f'<ul class="missing">{notes}</ul>'))
    return "\n".join(parts)


def _section(id: str, title: str, note: str, body: str) -> str:
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    return f'<section aria-labelledby="{id}"><h2 id="{id}">{escape(title)}</h2>{said}{body}</section>\n'


def _plain(value: Any) -> Any:
    """Named tuples as mappings, and numbers that JSON does not have as null."""
    fields = getattr(value, "_asdict", None)
    if fields is not None:
        return _plain(fields())
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
