"""Commands below ``unweave bench``: architectures where the truth is known."""

from pathlib import Path
from typing import Annotated

import typer

from unweave.cli.arguments import Quiet, listed

bench = typer.Typer(help="Compare architectures where the truth is known.", no_args_is_help=True)


@bench.command()
def truth(
    settings: Annotated[list[str] | None, typer.Argument(help="Settings to change, such as steps=1000.")] = None,
    architectures: Annotated[str, typer.Option(help="Architectures, with commas; all by default.")] = "",
    json: Annotated[Path | None, typer.Option(help="Also write all figures to this file.")] = None,
    quiet: Quiet = False,
) -> None:
    """Train every architecture on synthetic rows for equal steps, and mark each against the features in them."""
    from unweave.pipelines.progress import Watch

    watch = Watch(quiet=quiet)
    with watch.waiting("starting"):
        from unweave.cli.tables import print_marks
        from unweave.config import apply_overrides, build
        from unweave.pipelines.bench_truth import TruthBench, bench_truth, write_marks

    config = build(TruthBench, apply_overrides({}, settings or []), "bench")
    marks = []
    for mark in bench_truth(config, listed(architectures), watch):
        marks.append(mark)
        if json is not None:
            write_marks(json, config, marks)
    print_marks(config, marks)
