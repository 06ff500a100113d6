"""The command `unweave`: one subcommand per verb."""

import sys
import time
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
OutOfRun = Annotated[Path | None, typer.Option("--out", help="Folder of the run.", show_default="runs/<recipe>")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a run of the same name.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]


@app.command()
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


@app.command()
def sweep(
    recipe: Annotated[str, typer.Argument(help="A TOML file, or a recipe that comes with unweave: demo.")],
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


@app.command()
def harvest(
    recipe: Annotated[str, typer.Argument(help="A TOML file, or a recipe that comes with unweave: demo.")],
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

    names = [site.strip() for site in sites.split(",") if site.strip()]
    what = {"rows": rows, "dtype": dtype, "shard_rows": shard_rows, "sites": names}
    try:
        shards = filling.harvest(recipe, *(overrides or []), out=out, quiet=quiet, **what)
    except KeyboardInterrupt as stop:
        typer.echo(str(stop) or "stopped", err=True)
        raise typer.Exit(130) from stop
    typer.echo(shards.describe())


@app.command()
def tokenize(
    recipe: Annotated[str, typer.Argument(help="A TOML file, or a recipe that comes with unweave: demo.")],
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


@app.command()
def evaluate(
    run: RunPath,
    overrides: Overrides = None,
    suite: Annotated[
        str, typer.Option(help="Suites, with commas: core, probing, sae_probes, tpp, scr, shift, absorption, mdl.")
    ] = "core",
    task: Annotated[
        list[str] | None,
        typer.Option(help="Labelled texts for the suites: a .jsonl or .csv file, a folder, hf:ID, or builtin:NAME."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Measure a run's coder anew and rewrite its results, latents and report; or measure it by other suites."""
    from unweave.pipelines.progress import Watch

    watch = Watch(quiet=quiet)
    names = [name.strip() for name in suite.split(",") if name.strip()]
    others = [name for name in names if name != "core"]
    if others:
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


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="A")],
    second: Annotated[Path, typer.Argument(help="Folder of another.", metavar="B")],
) -> None:
    """Say which differences between the figures of two runs are real; both measured on the same tokens."""
    from unweave.cli.tables import print_comparison
    from unweave.pipelines.compare import compare as differences

    print_comparison(first, second, differences(first, second))


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
    quiet: Quiet = False,
) -> None:
    """List the named sites of a model, found and proved by passes on a few tokens."""
    from unweave.pipelines.progress import Watch

    watch = Watch(quiet=quiet)
    with watch.waiting("loading"):
        from unweave.cli.tables import print_sites
        from unweave.models.language_model import LanguageModel
        from unweave.models.proof import prove

        loaded = LanguageModel.load(model)
    with watch.slow_bar("zeroing sites") as bar:
        proof = prove(loaded, bar)
    print_sites(loaded.name, proof)


@app.command()
def convert(
    source: Annotated[
        str, typer.Argument(help="A run, a dictionary's folder or file, hf:owner/name, or a short name.")
    ],
    out: Annotated[Path, typer.Argument(help="New folder to write to.")],
    to: Annotated[
        str, typer.Option(help="Format to write: unweave, saelens, sparsify or dictionary_learning.")
    ] = "unweave",
    which: Annotated[str, typer.Option(help="One coder of several.", show_default="all")] = "",
    model: Annotated[str, typer.Option(help="The model it belongs to, where its files do not say so.")] = "",
    site: Annotated[str, typer.Option(help="The site that it reads, where its files do not say so.")] = "",
    target: Annotated[str, typer.Option(help="The site that a transcoder writes, likewise.")] = "",
    format: Annotated[str, typer.Option("--from", help="Format to read.", show_default="recognised")] = "",
    quiet: Quiet = False,
) -> None:
    """Write a coder in another library's format, or one of theirs in ours."""
    from unweave.pipelines.progress import Watch

    watch = Watch(quiet=quiet)
    with watch.waiting("reading"):
        from unweave.pipelines.convert import convert as write
        from unweave.pipelines.load import load, load_all

        place = {"model": model, "site": site, "target": target, "format": format}
        coders = {which: load(source, which, **place)} if which else load_all(source, **place)
    with watch.waiting("writing"):
        folders = write(coders, out, to)
    for folder, coder in zip(folders, coders.values(), strict=True):
        typer.echo(f"{folder}: {coder.extra_repr()}")


@app.command()
def releases(
    name: Annotated[str, typer.Argument(help="A release, or a part of the names to list.")] = "",
) -> None:
    """List published dictionaries that load by a short name."""
    from unweave.cli.tables import print_releases
    from unweave.formats.releases import releases as known

    print_releases(known(), name)


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
    marks = []
    for mark in bench_truth(config, names, watch):
        marks.append(mark)
        if json is not None:
            write_marks(json, config, marks)
    print_marks(config, marks)


def _print_run(path: Path) -> None:
    """What was found, and where to look: of one coder, or of a sweep."""
    from unweave.cli.tables import print_findings, print_results, print_sweep
    from unweave.pipelines.recipe import read_plan
    from unweave.pipelines.report import diagnose_run
    from unweave.pipelines.sweep import swept_coders
    from unweave.storage.run_folder import Run

    plan = read_plan(str(path / "config.toml"), [])
    if plan.is_grid:
        print_sweep(path, swept_coders(path, plan))
    else:
        print_results(Run(path))
        print_findings(diagnose_run(Run(path)))
    typer.echo(f"report: {path / 'report' / 'index.html'}")


@app.callback(invoke_without_command=True)
def about(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Take a neural network's activations apart into sparse, interpretable latents."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _let_the_first_speak() -> None:
    """What fails in all processes that torchrun started is said once: it ends the others when the first has failed."""
    from unweave.pipelines.processes import process_number

    if process_number() > 0:
        time.sleep(3)


def main() -> None:
    """Run the command line; what a user can put right is one line on stderr and exit code 2."""
    try:
        app()
    except (UserError, OSError) as error:
        _let_the_first_speak()
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
