"""The command that serves the web app."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    path: Annotated[Path, typer.Argument(help="A run, or a folder of runs.", metavar="RUNS")] = Path("runs"),
    port: Annotated[int, typer.Option(help="Port; the next free one where it is in use, 0 for any.")] = 7001,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Show runs and their latents in a browser, on this machine only."""
    from unweave.pipelines.progress import Watch

    with Watch(quiet=False).waiting("starting"):
        from unweave.web.serve import serve as serve_runs

    serve_runs(path, port=port, browser=browser, told=typer.echo)
