"""Commands that train coders, and those that prepare what a training reads."""

from pathlib import Path
from typing import Annotated

import typer

from unweave.cli.arguments import OutOfRun, Overrides, Overwrite, Quiet, Recipe, listed
from unweave.errors import UserError


def train(
    recipe: Annotated[str, typer.Argument(help="A TOML file, or a recipe that comes with unweave: demo.")] = "",
    overrides: Overrides = None,
    out: OutOfRun = None,
    overwrite: Overwrite = False,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this run, which was cut short, from its last checkpoint.")
    ] = None,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Resume with a recipe or settings that differ from the run's.")
    ] = False,
    allow_previous: Annotated[
        bool, typer.Option("--allow-previous", help="Resume from the checkpoint before one that is damaged.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Train a coder, measure it, and write a report about its latents."""
    from unweave.pipelines.progress import Watch

    watch = Watch(quiet=quiet)
    if resume is not None:
        if out is not None or overwrite:
            raise UserError("--resume goes on in the run's own folder; leave out --out and --overwrite")
        with watch.waiting("starting"):
            from unweave.pipelines.resume import resume as go_on

        # what looks like a setting in the first place is one, as a run that is resumed has a recipe
        given = [text for text in (recipe, *(overrides or [])) if text]
        other = given.pop(0) if given and "=" not in given[0] else ""
        path = go_on(resume, watch, other, given, allow_changes=allow_changes, allow_previous=allow_previous)
    else:
        if not recipe:
            raise UserError("which recipe? give a TOML file or a recipe that comes with unweave, such as demo")
        with watch.waiting("starting"):
            from unweave.pipelines import train as main_job

        path = main_job.train(recipe, *(overrides or []), out=out, overwrite=overwrite, quiet=quiet).path
    _print_run(path)


def sweep(
    recipe: Recipe,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to change; lists make a grid, such as 'coder.k=[16, 32]'.")
    ] = None,
    out: OutOfRun = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Train many coders in one pass of the model, and compare what sparsity costs them."""
    from unweave.pipelines.progress import Watch

    watch = Watch(quiet=quiet)
    with watch.waiting("starting"):
        from unweave.pipelines.recipe import read_plan
        from unweave.pipelines.run_plan import default_folder
        from unweave.pipelines.sweep import run_sweep

    folder = default_folder(recipe, out)
    run_sweep(read_plan(recipe, overrides or []), folder, watch, overwrite=overwrite)
    _print_run(folder)


def harvest(
    recipe: Recipe,
    overrides: Overrides = None,
    out: Annotated[str, typer.Option(help="Folder or fsspec address.", show_default="the recipe's cache")] = "",
    rows: Annotated[int | None, typer.Option(help="Rows in all.", show_default="training.rows")] = None,
    dtype: Annotated[str, typer.Option(help="How rows are stored: bfloat16, float32 or int8.")] = "bfloat16",
    shard_rows: Annotated[int, typer.Option(help="Rows after which a shard ends.")] = 65_536,
    sites: Annotated[str, typer.Option(help="Sites, with commas.", show_default="those of the recipe")] = "",
    quiet: Quiet = False,
) -> None:
    """Write activations of the training text to disk, for training with `cache = ADDRESS`; run again to go on."""
    from unweave.pipelines.progress import Watch

    with Watch(quiet=quiet).waiting("starting"):
        from unweave.pipelines import harvest as filling

    what = {"rows": rows, "dtype": dtype, "shard_rows": shard_rows, "sites": listed(sites)}
    try:
        shards = filling.harvest(recipe, *(overrides or []), out=out, quiet=quiet, **what)
    except KeyboardInterrupt as stop:
        typer.echo(str(stop) or "stopped", err=True)
        raise typer.Exit(130) from stop
    typer.echo(shards.describe())


def tokenize(
    recipe: Recipe,
    out: Annotated[Path, typer.Option(help="File to write.")],
    overrides: Overrides = None,
    tokens: Annotated[int | None, typer.Option(help="Most tokens to train on, and held out.")] = None,
    quiet: Quiet = False,
) -> None:
    """Write the tokens of a recipe's text to a file, which `text.source=tokens:FILE` reads without a tokenizer."""
    from unweave.pipelines.progress import Watch

    watch = Watch(quiet=quiet)
    with watch.waiting("starting"):
        from unweave.pipelines.recipe import read_plan
        from unweave.pipelines.workbench import set_up

    with watch.waiting("tokenising"):
        n_tokens = set_up(read_plan(recipe, overrides or []).recipe).write_tokens(out, tokens)
    typer.echo(f"{n_tokens:,} tokens in {out}")


def _print_run(path: Path) -> None:
    """What was found, and where to look: of one coder, or of a sweep."""
    from unweave.cli.sweep_tables import print_sweep
    from unweave.cli.tables import print_findings, print_results
    from unweave.pipelines.recipe import read_plan
    from unweave.pipelines.report import diagnose_run
    from unweave.pipelines.sweep import read_sweep, swept_coders
    from unweave.storage.run_folder import Run

    plan = read_plan(str(path / "config.toml"), [])
    if plan.is_grid:
        print_sweep(path, swept_coders(path, plan), read_sweep(path))
    else:
        print_results(Run(path))
        print_findings(diagnose_run(Run(path)))
    typer.echo(f"report: {path / 'report' / 'index.html'}")
    typer.echo(f"look at its latents: unweave serve {path}")
