"""The command that takes latents elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from unweave.cli.arguments import Quiet


def export(
    runs: Annotated[list[Path], typer.Argument(help="Runs with an index, or folders of SAEDashboard's files.")],
    to: Annotated[str, typer.Option(help="Format: html, neuronpedia or saedashboard.")],
    out: Annotated[Path, typer.Option(help="New folder to write to.")],
    latents: Annotated[str, typer.Option(help="Such as 0-99,120.", show_default="all")] = "",
    reach: Annotated[
        int | None,
        typer.Option(help="Tokens shown to each side of an example's peak.", show_default="40 for html, else 63"),
    ] = None,
    model_id: Annotated[str, typer.Option(help="The model's name there.", show_default="made from its own")] = "",
    name: Annotated[str, typer.Option(help="The coder's name there.", show_default="that of the folder")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export of the same name.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write latents as pages that open without a server, or for Neuronpedia, or as SAEDashboard's files."""
    from unweave.pipelines.progress import Watch

    watch = Watch(quiet=quiet)
    with watch.waiting("starting"):
        from unweave.pipelines.export import export as write
        from unweave.pipelines.export_sources import ExportConfig

        config = ExportConfig(latents=latents, reach=reach, model_id=model_id, name=name)
    typer.echo(write(runs, to, out, watch, config, overwrite=overwrite))
