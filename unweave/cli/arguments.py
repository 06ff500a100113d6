"""Arguments that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

Recipe = Annotated[str, typer.Argument(help="A TOML file, or a recipe that comes with unweave: demo.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Settings of the recipe to change, such as coder.k=64.")]
RunPath = Annotated[Path, typer.Argument(help="Folder of a run, such as runs/demo.", metavar="RUN")]
OutOfRun = Annotated[Path | None, typer.Option("--out", help="Folder of the run.", show_default="runs/<recipe>")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a run of the same name.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]


def listed(names: str) -> list[str]:
    """Names that stand with commas between them."""
    return [name.strip() for name in names.split(",") if name.strip()]
