"""The command `unweave`: one subcommand per verb."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from unweave import __version__
from unweave.errors import UserError

app = typer.Typer(
    help="Take a neural network's activations apart into sparse, interpretable latents.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
Overrides = Annotated[list[str] | None, typer.Argument(help="Settings of the recipe to change, such as coder.k=64.")]
RunPath = Annotated[Path, typer.Argument(help="Folder of a run, such as runs/demo.", metavar="RUN")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A TOML file, or a recipe that comes with unweave: demo.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/<recipe>")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run of the same name.")] = False,
    quiet: Quiet = False,
) -> None:
    """Train a coder, measure it, and write a report about its latents."""
    from unweave.pipelines.progress import Watch

    with Watch(quiet=quiet).waiting("starting"):
        from unweave.cli.tables import print_findings, print_results
        from unweave.pipelines import train as main_job
        from unweave.pipelines.report import diagnose_run

    run = main_job.train(recipe, *(overrides or []), out=out, overwrite=overwrite, quiet=quiet)
    print_results(run)
    print_findings(diagnose_run(run))
    typer.echo(f"report: {run.path / 'report' / 'index.html'}")


@app.command()
def evaluate(run: RunPath, overrides: Overrides = None, quiet: Quiet = False) -> None:
    """Measure a run's coder anew and rewrite its results, latents and report."""
    from unweave.pipelines.progress import Watch

    watch = Watch(quiet=quiet)
    with watch.waiting("starting"):
        from unweave.cli.tables import print_results
        from unweave.pipelines.evaluate import evaluate_run

    print_results(evaluate_run(run, overrides or [], watch))


@app.command()
def report(run: RunPath) -> None:
    """Write a run's report and coder card again from what was measured."""
    from unweave.pipelines.report import write_report
    from unweave.storage.run_folder import Run

    typer.echo(f"report: {write_report(Run(run), name=run.resolve().name)}")


@app.command()
def show(run: RunPath, latent: Annotated[int, typer.Option(help="Number of the latent.")]) -> None:
    """Print one latent: its examples, and the tokens it promotes and suppresses."""
    from unweave.cli.tables import print_latent
    from unweave.storage.run_folder import Run

    print_latent(Run(run).latents, latent)


@app.command()
def doctor(run: RunPath) -> None:
    """Say in plain words what is off in a run's figures and what to try."""
    from unweave.cli.tables import print_findings
    from unweave.pipelines.report import diagnose_run
    from unweave.storage.run_folder import Run

    print_findings(diagnose_run(Run(run)))


@app.command()
def describe(
    name: Annotated[
        str, typer.Argument(help="A section of a recipe, such as training or coder.batch_topk.")
    ] = "recipe",
) -> None:
    """Print the settings of a section, with defaults and what they do."""
    from unweave.cli.tables import print_description
    from unweave.pipelines.recipe import configurable
    from unweave.registry import lookup

    sections = configurable()
    print_description(name, lookup(name, sections, "section"), list(sections))


@app.command()
def sites(
    model: Annotated[str, typer.Argument(help="builtin:pylm, a model folder, or a hub id.")] = "builtin:pylm",
) -> None:
    """List the named sites of a model."""
    from unweave.models.language_model import LanguageModel

    for site in LanguageModel.load(model).sites.names():
        typer.echo(site)


bench = typer.Typer(help="Compare architectures where the truth is known.", no_args_is_help=True)
app.add_typer(bench, name="bench")


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
    names = [name.strip() for name in architectures.split(",") if name.strip()]
    marks = list(bench_truth(config, names, watch))
    if json is not None:
        write_marks(json, config, marks)
    print_marks(config, marks)


@app.callback(invoke_without_command=True)
def about(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Take a neural network's activations apart into sparse, interpretable latents."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; what a user can put right is one line on stderr and exit code 2."""
    try:
        app()
    except (UserError, OSError) as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
