"""Dictionaries that other libraries wrote, one format per module; the file name is the format's name everywhere.

A module has ``recognises(path)``, which looks at names and configs and never raises, ``read(path, place)``, and where
the format can be written ``write(coder, folder)``. A path is a folder, or one file of a folder that holds several.
"""

import importlib
import pkgutil
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol, cast, runtime_checkable

from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.registry import lookup


class Place(NamedTuple):
    """What a format may not say itself; empty where it is not known. It wins over what a file says."""

    model: str = ""
    """Name of the language model."""
    site: str = ""
    """Where the dictionary reads; TransformerLens names and options such as ``:centred`` are fine."""
    target: str = ""
    """Where a transcoder writes."""


@runtime_checkable
class Format(Protocol):
    """What a module here has."""

    def recognises(self, path: Path) -> bool: ...

    def read(self, path: Path, place: Place) -> dict[str, SparseCoder]:
        """The coders at ``path`` by name, on the CPU in float32; a single one may be called by its folder's name."""
        ...


@runtime_checkable
class Writable(Format, Protocol):
    """A format that can be written as well."""

    def write(self, coder: SparseCoder, folder: Path) -> None: ...


@cache
def formats() -> dict[str, Format]:
    """Every format by name."""
    names = [info.name for info in pkgutil.iter_modules(__path__)]
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: cast(Format, module) for name, module in modules.items() if hasattr(module, "recognises")}


def read_dictionaries(path: Path, place: Place = Place(), name: str = "") -> dict[str, SparseCoder]:  # noqa: B008
    """The coders of a file or folder, by name; ``name`` is its format where that should not be guessed."""
    if not path.exists():
        raise UserError(f"there is nothing at {str(path)!r}; give a folder, a file or the short name of a release")
    if name:
        return lookup(name, formats(), "format").read(path, place)
    found = [format for format in formats().values() if format.recognises(path)]
    if not found:
        known = ", ".join(formats())
        raise UserError(f"{str(path)!r} is no dictionary of a known format ({known}); give its folder or its file")
    return found[0].read(path, place)


def write_dictionary(coder: SparseCoder, folder: Path, name: str) -> None:
    """Write a coder so that another library reads it; raises ``UserError`` for what that library cannot hold."""
    writable = {known: cast(Writable, format) for known, format in formats().items() if hasattr(format, "write")}
    lookup(name, writable, "format to write").write(coder, folder)
