"""The pages of a sweep: what sparsity costs, coder by coder, as HTML, as a picture and as a table."""

import csv
import io
from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import quote

from unweave.analysis.pareto import SHOWN, ParetoLine, SweptCoder, pareto_lines
from unweave.metrics import Definition
from unweave.pages.data_script import compact, data_script
from unweave.pages.fragments import facts_list, figure
from unweave.pages.shell import assets, page

_COLUMNS = ("l0", "explained_variance", "loss_recovered_mean", "ce_spliced", "kl", "dead_share", "dense_share")
_SCRIPTS = (
    "assets/store.js",
    "assets/elements.js",
    "data/sweep.js",
    "assets/plotly.min.js",
    "assets/charts.js",
    "assets/sweep.js",
)


def sweep_files(
    name: str, facts: Mapping[str, str], coders: Sequence[SweptCoder], definitions: Mapping[str, Definition]
) -> dict[str, str]:
    """Relative path to content of each file; reports of the coders are expected in ``../coders/<name>/report``."""
    lines = pareto_lines(coders)
    texts = {
        "name": escape(name),
        "facts": facts_list(facts),
        "headings": "".join(
            f'<th scope="col" class="value">{escape(definitions[column].title)}</th>' for column in _COLUMNS
        ),
        "rows": "\n".join(_row(coder) for coder in coders),
    }
    return {
        "index.html": page("sweep.html", "report", f"{name} · unweave sweep", _SCRIPTS, texts),
        "data/sweep.js": data_script("sweep", _drawn(lines, definitions)),
        "sweep.csv": sweep_csv(coders),
        **assets(),
    }


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
    cells = "".join(f'<td class="value">{figure(name, coder.figures[name])}</td>' for name in _COLUMNS)
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
