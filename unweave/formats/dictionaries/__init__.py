"""Dictionaries that other libraries wrote, one format per module; the file name is the format's name everywhere.

A module has ``recognises(path)``, which looks at names and configs and never raises, ``read(path, place)``, and where
the format can be written ``write(coder, folder)``. A path is a folder, or one file of a folder that holds several.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

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


@runtime_checkable
class Correctable(Format, Protocol):
    """A format whose ``read`` takes settings that a published config should have and does not."""

    CORRECTIONS: tuple[str, ...]
    """Their names."""

    def read(self, path: Path, place: Place, config: Mapping[str, Any] = ...) -> dict[str, SparseCoder]: ...


@cache
def formats() -> dict[str, Format]:
    """Every format by name."""
    names = [info.name for info in pkgutil.iter_modules(__path__)]
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: cast(Format, module) for name, module in modules.items() if hasattr(module, "recognises")}


def read_dictionaries(
    path: Path,
    place: Place = Place(),  # noqa: B008
    name: str = "",
    config: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, SparseCoder]:
    """The coders of a file or folder, by name; ``name`` is its format where that should not be guessed.

    ``config`` is put over the config that is read. Raises ``UserError`` where the format does not know such a setting.
    """
    if not path.exists():
        raise UserError(f"there is nothing at {str(path)!r}; give a folder, a file or the short name of a release")
    name = name or next((name for name, format in formats().items() if format.recognises(path)), "")
    if not name:
        known = ", ".join(formats())
        raise UserError(f"{str(path)!r} is no dictionary of a known format ({known}); give its folder or its file")
    format = lookup(name, formats(), "format")
    if not config:
        return format.read(path, place)
    if unknown := config.keys() - set(getattr(format, "CORRECTIONS", ())):
        raise UserError(f"the config of a dictionary in the format {name} cannot be given {', '.join(sorted(unknown))}")
    return cast(Correctable, format).read(path, place, config)


def write_dictionary(coder: SparseCoder, folder: Path, name: str) -> None:
    """Write a coder so that another library reads it; raises ``UserError`` for what that library cannot hold."""
    writable = {known: cast(Writable, format) for known, format in formats().items() if hasattr(format, "write")}
    lookup(name, writable, "format to write").write(coder, folder)
