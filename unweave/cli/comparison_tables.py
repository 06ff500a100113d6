"""How the comparisons of two coders look in a terminal."""

import sys
from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unweave.analysis.definitions import definitions
from unweave.pipelines.comparisons import ComparedFigure, Comparison

_BARS = "▁▂▃▄▅▆▇█"


def print_comparisons(first: str, second: str, found: Mapping[str, Comparison]) -> None:
    """A table for each comparison: figure, value, error, what it is by chance, and what it means."""
    console = Console(file=sys.stdout, highlight=False, markup=False)
    console.print(Text(f"A: {first}, B: {second}"), soft_wrap=True)
    for name, comparison in found.items():
        console.print(_table(f"{name}: {comparison.note}", comparison.figures))
        if "mse" in comparison.details:
            console.print(f"error at each step: {sparkline(comparison.details['mse'])}")
            console.print(f"active latents:     {sparkline(comparison.details['l0'])}\n")


def sparkline(values: list[float]) -> str:
    """Numbers from 0 to the largest as bars of eight heights."""
    largest = max(values, default=0.0) or 1.0
    return "".join(_BARS[min(7, max(0, int(8 * value / largest)))] for value in values)


def _table(title: str, figures: list[ComparedFigure]) -> Table:
    known = definitions()
    columns = {"value": "value", "error": "±", "chance": "by chance", "p": "p"}
    shown = [name for name in columns if any(getattr(figure, name) is not None for figure in figures)]
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("figure", max_width=28)
    for name in shown:
        table.add_column(columns[name], justify="right", no_wrap=True)
    table.add_column("meaning", style="dim", max_width=76)
    for figure in figures:
        cells = (_number(getattr(figure, name)) for name in shown)
        table.add_row(known[figure.name].title, *cells, known[figure.name].meaning)
    return table


def _number(value: float | None) -> str:
    return "" if value is None else "-" if value != value else f"{value:.3g}"
