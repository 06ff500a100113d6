"""How a sweep looks in a terminal: its coders, its lines, and what its coders say together."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from unweave.analysis.definitions import definitions as comparisons
from unweave.analysis.pareto import SweptCoder
from unweave.analysis.swept import kept_start
from unweave.metrics import definitions

_SHOWN = {
    "l0": "L0",
    "explained_variance": "EV",
    "loss_recovered_mean": "loss recovered",
    "dead_share": "dead",
    "dense_share": "dense",
}


def print_sweep(path: Path, coders: list[SweptCoder], said: Mapping[str, Any]) -> None:
    """A line for each coder, sparsest first within a line of the chart; then what ``sweep.json`` says of all."""
    console = Console(file=sys.stdout, highlight=False, markup=False)
    table = _table(f"{path}: {len(coders)} coders", "coder", list(_SHOWN.values()))
    for coder in sorted(coders, key=lambda coder: (coder.line, coder.figures["l0"])):
        table.add_row(coder.name, *(_number(name, coder.figures[name]) for name in _SHOWN))
    console.print(table)
    known = comparisons()
    for figure, lines in said["frontiers"]["figures"].items():
        columns = list(next(iter(lines.values())))
        titles = [known[name].title if name in known else f"At L0 {name.rpartition('_')[2]}" for name in columns]
        table = _table(f"{definitions()[figure].title}, line by line", "line", titles)
        for line, spreads in sorted(lines.items(), key=lambda item: -item[1]["frontier_hypervolume"]["mean"]):
            table.add_row(line, *(_spread(spreads[name]) for name in columns))
        console.print(table)
    laws = [(f"{law['group']}, {law['law']}", law["figures"]) for law in said["laws"]]
    steps = [
        (f"{chain['group']}: {chain['sizes'][step]:,} to {chain['sizes'][step + 1]:,}", figures)
        for chain in said["families"]
        for step, figures in enumerate(chain["figures"])
    ]
    chains = [(chain["group"], chain["figures"]) for chain in said["tracks"]]
    for title, rows in (("scaling laws", laws), ("families across widths", steps), ("tracks through layers", chains)):
        if rows:
            console.print(_figures(title, rows))
    figures = [of_step for chain in said["families"] for of_step in chain["figures"]]
    for note in [kept_start(figures + [chain["figures"] for chain in said["tracks"]]), *said["notes"]]:
        if note:
            console.print(note)


def _table(title: str, first: str, headings: list[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _figures(title: str, rows: list[tuple[str, Mapping[str, float | None]]]) -> Table:
    known, names = comparisons(), list(rows[0][1])
    table = _table(title, "", [known[name].title for name in names])
    for name, figures in rows:
        table.add_row(name, *(_number(column, figures[column]) for column in names))
    return table


def _spread(spread: Mapping[str, float] | None) -> str:
    if spread is None:
        return "-"
    error = f" ± {spread['error']:.1g}" if spread["error"] else ""
    return f"{spread['mean']:.4g}{error}"


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    share = name.endswith("_share") or name in ("family_orphans", "family_ended")
    return f"{value:.1%}" if share else f"{value:.4g}"
