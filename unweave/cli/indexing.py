"""The command that makes the index of a run's latents."""

from typing import Annotated

import typer

from unweave.cli.arguments import Quiet, RunPath


def index(
    run: RunPath,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to change, such as index.examples=40 or text.field=body.")
    ] = None,
    text: Annotated[
        str, typer.Option(help="Text to read whole, as in text.source.", show_default="the run's held-out text")
    ] = "",
    tokens: Annotated[int | None, typer.Option(help="Most tokens to read.", show_default="index.tokens")] = None,
    quiet: Quiet = False,
) -> None:
    """Read a text once and index all latents: what they fire on, promote and resemble; run again to go on."""
    from unweave.pipelines.progress import Watch

    watch = Watch(quiet=quiet)
    with watch.waiting("starting"):
        from unweave.pipelines.index import index_run

    given = [*([] if tokens is None else [f"index.tokens={tokens}"]), *(overrides or [])]
    try:
        found = index_run(run, watch, text=text, overrides=given)
    except KeyboardInterrupt as stop:
        typer.echo(str(stop) or "stopped", err=True)
        raise typer.Exit(130) from stop
    about = found.manifest
    size = sum(file["bytes"] for file in about["files"].values())
    typer.echo(
        f"{len(found):,} latents, {about['n_rows']:,} tokens of {about['n_documents']:,} documents in {found.folder}: "
        f"{size / 2**20:,.0f} MB, {size / len(found) / 1000:.1f} KB a latent"
    )
