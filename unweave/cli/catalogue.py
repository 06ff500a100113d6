"""Commands that list what there is (settings, sites, releases) and bring a coder from one format into another."""

from pathlib import Path
from typing import Annotated

import typer

from unweave.cli.arguments import Quiet


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


def releases(
    name: Annotated[str, typer.Argument(help="A release, or a part of the names to list.")] = "",
) -> None:
    """List published dictionaries that load by a short name."""
    from unweave.cli.tables import print_releases
    from unweave.formats.releases import releases as known

    print_releases(known(), name)
