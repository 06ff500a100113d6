"""The command `unweave`: one subcommand per verb."""

import sys
import time
from typing import Annotated

import typer

from unweave import __version__
from unweave.cli import catalogue, exporting, indexing, measuring, serving, training
from unweave.cli.benches import bench
from unweave.errors import UserError

app = typer.Typer(
    help="Take a neural network's activations apart into sparse, interpretable latents.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
COMMANDS = (
    *(training.train, training.sweep, training.harvest, training.tokenize),
    *(measuring.evaluate, measuring.compare, measuring.report, measuring.show, measuring.doctor),
    *(indexing.index, serving.serve, exporting.export),
    *(catalogue.describe, catalogue.sites, catalogue.convert, catalogue.releases),
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(bench, name="bench")


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
