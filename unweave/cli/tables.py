"""Tables and latents as they look in a terminal."""

import inspect
import math
import sys
from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unweave.analysis.doctor import Finding
from unweave.analysis.paired import Difference
from unweave.config import describe
from unweave.errors import UserError, nearest
from unweave.evals.measured import Measured
from unweave.formats.releases import Release
from unweave.latent_record import Example, TokenWeight
from unweave.metrics import definitions
from unweave.models.proof import Proof
from unweave.pipelines.bench_truth import Marked, TruthBench
from unweave.storage.index_folder import LatentIndex
from unweave.storage.run_folder import Run

_MARKS = {"good": ("ok     ", "green"), "warning": ("look   ", "yellow"), "problem": ("problem", "red")}
_SHARES = ("_share", "massive_rows", "special_rows", "_energy")
"""Ends of the keys of figures that are shown in percent."""


def print_results(run: Run) -> None:
    """The figures of a run, with standard errors and what is usual."""
    results = run.results
    table = Table(title=f"{run.path}: measured on {results['n_tokens']:,} held-out tokens", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("±", justify="right")
    table.add_column("usual in a good coder")
    for name, definition in definitions().items():
        if name in results:
            error = results["standard_errors"].get(name)
            table.add_row(definition.title, _figure(name, results[name]), _figure(name, error), definition.good)
    _console().print(table)


def print_suites(found: Mapping[str, Mapping[str, Measured]]) -> None:
    """A table for each suite: one line for each figure, one column for the coder and each of its floors."""
    from unweave.pipelines.suites import SUITES

    for name, coders in found.items():
        known = {d.name: d for d in SUITES[name].definitions()}
        n = next(iter(coders.values())).n
        table = Table(title=f"{name}: {n:,} examples", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("figure")
        for coder in coders:
            table.add_column(coder, justify="right", no_wrap=True)
        first = next(iter(coders.values()))
        for figure in first.figures:
            cells = [_with_error(its.figures.get(figure), its.standard_errors.get(figure)) for its in coders.values()]
            table.add_row(known[figure].title if figure in known else figure, *cells)
        _console().print(table)


def print_differences(first: str, second: str, differences: list[Difference]) -> None:
    """One line for each figure of two runs, with the interval of the difference; those that are real stand out."""
    known = definitions()
    table = Table(title=f"A: {first}, B: {second}", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("figure")
    for heading in ("A", "B", "B - A, 95 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for d in sorted(differences, key=lambda d: list(known).index(d.name)):
        interval = f"{_figure(d.name, d.low)} to {_figure(d.name, d.high)}"
        mark = Text("real", "green") if d.is_real else Text("not told apart", "dim")
        table.add_row(known[d.name].title, _figure(d.name, d.first), _figure(d.name, d.second), interval, mark)
    _console().print(table)


def print_marks(bench: TruthBench, marks: list[Marked]) -> None:
    """One line for each architecture, the best match of the true features first."""
    data = f"{bench.data.n_features} features in {bench.data.d_model} dimensions"
    title = f"{bench.steps:,} steps of {bench.batch:,} rows, {data}, mean of {len(bench.seeds)} seeds"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("architecture", no_wrap=True)
    # both do not fit into 80 columns; --json has all figures
    last, name_of_last = ("absorbed", "parent_absorbed") if bench.has_hierarchy else ("unique", "uniqueness")
    for heading in ("L0", "EV", "MCC", "±", "F1", "±", last, "dead", "s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for mark in sorted(marks, key=lambda mark: -mark.mean("mcc")):
        cells = [f"{mark.mean('l0'):.1f}", f"{mark.mean('explained_variance'):.3f}"]
        for name in ("mcc", "f1"):
            cells += [f"{mark.mean(name):.3f}", f"{mark.standard_error(name):.3f}"]
        cells += [f"{mark.mean(name_of_last):.2f}", f"{mark.mean('dead_share'):.0%}", f"{mark.mean('seconds'):.1f}"]
        table.add_row(mark.architecture, *cells)
    _console().print(table)


def print_findings(findings: list[Finding]) -> None:
    """What the doctor found, the gravest first."""
    console = _console()
    for finding in findings:
        mark, colour = _MARKS[finding.level]
        console.print(Text.assemble((mark, colour), "  ", (finding.title, "bold"), ". ", finding.advice))


def print_latent(index: LatentIndex, latent: int) -> None:
    """One latent with its examples, the activation as the background of each token."""
    record, vocabulary, console = index[latent], index.vocabulary(), _console()
    console.print(Text(f"latent {latent} of {len(index)}", style="bold"))
    if record.n_fires == 0:
        console.print("never fired on the measured text")
    else:
        console.print(
            f"fires on {record.density:.3%} of tokens ({record.n_fires:,} times), "
            f"max {record.max_activation:.2f}, mean when active {record.mean_activation:.2f}"
        )
    for label, weights in (("promotes", record.promoted), ("suppresses", record.suppressed)):
        if weights:
            console.print(Text.assemble((f"{label:<11}", "bold"), _weights(weights, vocabulary)))
    for example in record.examples:
        peak = example.activations[example.peak]
        console.print(Text.assemble((f"{peak:7.2f}  ", "dim"), _tokens(example, vocabulary, record.max_activation)))
        console.print(Text(f"         {_visible(example.document)}", style="dim"))


def print_sites(name: str, proof: Proof) -> None:
    """One line for each point of a model, then how well what was found holds."""
    console = _console()
    block = next(point.module for point in proof.points if point.name.endswith(".resid_pre"))
    title = f"{name}: {len(proof.block_errors)} layers, at {block}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("site", "module", "side"):
        table.add_column(heading, no_wrap=True)
    for heading in ("width", "zeroed"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=6)
    for point in proof.points:
        module = point.module.replace(block, "*", 1)
        zeroed = "" if point.effect is None else f"{point.effect:.1%}"
        table.add_row(point.name, module, point.side, str(point.width), zeroed)
    console.print(table)
    console.print("zeroed: how far zeros there move the output, relative to the output")
    errors = [error for error in proof.block_errors if error is not None]
    lines = {
        "stream = start + all that is added": _off(proof.stream_error),
        "each block adds attn_out + mlp_out": _off(max(errors, default=None)),
        "attn.z W_O + b_O = what attention writes": _off(proof.projection_error),
        "edits that change nothing": "leave the output as it is, bit for bit"
        if proof.is_exact
        else "CHANGE the output",
    }
    for claim, finding in lines.items():
        console.print(f"{claim}: {finding}")
    for problem in proof.problems:
        console.print(Text(f"problem: {problem}", style="red"))


def _off(error: float | None) -> str:
    return "does not apply" if error is None else f"off by at most {error:.1e}"


def print_description(name: str, config: type, known: list[str]) -> None:
    """The settings of one section of a recipe."""
    console = _console()
    console.print(Text(f"[{name}]" if name != "recipe" else "recipe", style="bold"), inspect.getdoc(config) or "", "\n")
    for field in describe(config):
        console.print(Text.assemble((field.name, "bold cyan"), f" ({field.type}) = {field.default}"))
        console.print(Text(f"    {field.doc}"))
    console.print(Text(f"\nsections: {', '.join(known)}", style="dim"))


def _console() -> Console:
    return Console(file=sys.stdout, highlight=False, markup=False)


def print_releases(known: Mapping[str, Release], name: str) -> None:
    """Releases whose name, model or repository has a text in it, and what their dictionaries are called."""
    found = [r for r in known.values() if name.lower() in f"{r.name} {r.model} {r.repository}".lower()]
    if not found:
        raise UserError(f"no release has {name!r} in its name, its model or its repository{nearest(name, known)}")
    console = _console()
    for release in found:
        console.print(Text.assemble((release.name, "bold"), "/" + release.id), soft_wrap=True)
        console.print(
            Text(f"    {release.model or 'the files say which model'}, {release.format}", "dim"), soft_wrap=True
        )
    console.print(f'\n{len(found)} releases; load one as unweave.load("{found[0].name}/...")', soft_wrap=True)


def _with_error(value: float | None, error: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.3g}" if error is None or math.isnan(error) else f"{value:.3g} ± {error:.1g}"


def _figure(name: str, value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.2%}" if name.endswith(_SHARES) else f"{value:.4g}"


def _weights(weights: list[TokenWeight], vocabulary: list[str]) -> str:
    return "  ".join(f"{_visible(vocabulary[w.token_id])!r} {w.weight:+.2f}" for w in weights)


def _tokens(example: Example, vocabulary: list[str], strongest: float) -> Text:
    text = Text()
    for token_id, activation in zip(example.token_ids, example.activations, strict=True):
        level = round(200 * activation / strongest) if strongest > 0 else 0
        style = f"black on rgb(255,{235 - level},{215 - level})" if activation > 0 else ""
        text.append(_visible(vocabulary[token_id]), style=style)
    return text


def _visible(token: str) -> str:
    known = token.replace("\n", "↵").replace("\t", "⇥").replace("\r", "␍")
    return "".join(character if character.isprintable() else "·" for character in known)
