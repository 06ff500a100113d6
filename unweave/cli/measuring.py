"""Commands that measure runs, compare them and show what was found."""

from pathlib import Path
from typing import Annotated

import typer

from unweave.cli.arguments import Overrides, Quiet, RunPath, listed
from unweave.errors import UserError


def evaluate(
    run: RunPath,
    overrides: Overrides = None,
    suite: Annotated[
        str,
        typer.Option(
            help="Suites, with commas: core, probing, sae_probes, tpp, scr, shift, absorption, mdl, geometry, "
            "cofiring, unlearning, ravel."
        ),
    ] = "core",
    task: Annotated[
        list[str] | None,
        typer.Option(help="Labelled texts for the suites: a .jsonl or .csv file, a folder, hf:ID, or builtin:NAME."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Measure a run's coder anew and rewrite its results, latents and report; or measure it by other suites."""
    from unweave.pipelines.processes import process_count
    from unweave.pipelines.progress import Watch

    watch = Watch(quiet=quiet)
    names = listed(suite)
    if not names:
        raise UserError("--suite was given no name; --help lists those that there are")
    others = [name for name in names if name != "core"]
    if others:
        if len(others) < len(names) and process_count() > 1:
            raise UserError(f"under torchrun core and {others[0]} are measured apart; give a command for each")
        with watch.waiting("starting"):
            from unweave.cli.tables import print_suites
            from unweave.pipelines.suites import measure_suites

        print_suites(measure_suites(run, others, watch, tasks=task or [], overrides=overrides or []))
    if "core" not in names:
        return
    with watch.waiting("starting"):
        from unweave.cli.tables import print_results
        from unweave.pipelines.evaluate import evaluate_run

    print_results(evaluate_run(run, overrides or [], watch))


def compare(
    first: Annotated[str, typer.Argument(help="Folder of a run; with --suite any coder that loads.", metavar="A")],
    second: Annotated[str, typer.Argument(help="Another one.", metavar="B")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings for --suite, such as evaluation.tokens=50_000 or text.source=FILE."),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(help="Comparisons, with commas: matching, stitching, swap, correlation, similarity, transfer."),
    ] = None,
    model: Annotated[str, typer.Option(help="Model of coders whose files do not say it.")] = "",
    draws: Annotated[int, typer.Option(help="Random rotations and pairings that tell what is chance.")] = 20,
    json: Annotated[Path | None, typer.Option(help="Also write all that --suite finds to this file.")] = None,
    quiet: Quiet = False,
) -> None:
    """Say which differences between the figures of two runs are real; or compare any two coders latent by latent."""
    from unweave.pipelines.progress import Watch

    watch = Watch(quiet=quiet)
    if suite is None:
        if overrides or json is not None or model:
            raise UserError("settings, --model and --json are for comparisons that measure; say which with --suite")
        with watch.waiting("starting"):
            from unweave.cli.tables import print_differences
            from unweave.pipelines.compare import compare as differences

        print_differences(first, second, differences(first, second))
        return
    with watch.waiting("starting"):
        from unweave.cli.comparison_tables import print_comparisons
        from unweave.pipelines.comparisons import compare_by, write_comparisons
        from unweave.pipelines.two_coders import two_coders

    two = two_coders(first, second, watch, model=model, overrides=overrides or [])
    found = compare_by(two, listed(suite), draws=draws)
    if json is not None:
        write_comparisons(json, two, found)
    print_comparisons(first, second, found)


def report(
    run: RunPath,
    saebench: Annotated[
        Path | None, typer.Option(help="Also write what was measured as SAEBench's result files, into this folder.")
    ] = None,
) -> None:
    """Write a run's report and coder card again from what was measured."""
    from unweave.pipelines.report import write_report
    from unweave.pipelines.saebench import write_saebench
    from unweave.storage.run_folder import Run

    typer.echo(f"report: {write_report(Run(run), name=run.resolve().name)}")
    for path in write_saebench(Run(run), saebench) if saebench is not None else ():
        typer.echo(f"saebench: {path}")


def show(run: RunPath, latent: Annotated[int, typer.Option(help="Number of the latent.")]) -> None:
    """Print one latent: its examples, and the tokens it promotes and suppresses."""
    from unweave.cli.tables import print_latent
    from unweave.storage.run_folder import Run

    print_latent(Run(run).latents, latent)


def doctor(run: RunPath) -> None:
    """Say in plain words what is off in a run's figures and what to try."""
    from unweave.cli.tables import print_findings
    from unweave.pipelines.report import diagnose_run
    from unweave.storage.run_folder import Run

    print_findings(diagnose_run(Run(run)))
