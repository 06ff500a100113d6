"""What the names of files and folders, and a config, say about where a dictionary belongs, and wiring made of that."""

import re
from pathlib import Path

from unweave.coders import Port, Wiring
from unweave.errors import UserError
from unweave.formats.dictionaries import Place


def in_path(pattern: str, path: Path) -> re.Match[str] | None:
    """The last match of a pattern in the names on the way to a file; symbolic links are not followed."""
    return max(re.finditer(pattern, path.absolute().as_posix()), key=lambda match: match.start(), default=None)


def layer_in_path(path: Path, pattern: str = r"layer_?(\d+)") -> str:
    """The number of a layer in the names on the way to a file, or nothing."""
    match = in_path(pattern, path)
    return match[1] if match else ""


def either(place: Place, found: Place) -> Place:
    """A place, and where it says nothing what was found."""
    return Place(*(given or other for given, other in zip(place, found, strict=True)))


def at_layer(place: Place, layer: int) -> Place:
    """A place whose ``{layer}`` is filled in, for files that hold several layers."""
    return Place(place.model, *(text.replace("{layer}", str(layer)) for text in place[1:]))


def sae_or_transcoder(place: Place, d_read: int, d_write: int, path: Path, *, skip: bool = False) -> Wiring:
    """An SAE where no target is known, else a transcoder; raises ``UserError`` where the widths allow no SAE."""
    if place.target or skip:
        return transcoder(place, d_read, d_write, path, skip=skip)
    if d_read != d_write:
        widths = f"reads width {d_read} and writes width {d_write}"
        raise UserError(f"{str(path)!r} {widths}, so it is a transcoder; say its site and its target")
    return Wiring.sae(d_read, place.site)


def transcoder(place: Place, d_read: int, d_write: int, path: Path, *, skip: bool = False) -> Wiring:
    """A transcoder; both ends have to be known, since nothing else sets it apart from an SAE."""
    if not place.site or not place.target:
        lacking = "site" if not place.site else "target"
        raise UserError(f"{str(path)!r} is a transcoder and does not say its {lacking}; give both site and target")
    return Wiring.transcoder(Port(place.site, d_read), Port(place.target, d_write), skip=skip)


def folder_name(file: Path) -> str:
    """The name of the folder that a file is in, which names the one coder in it."""
    return file.absolute().parent.name
