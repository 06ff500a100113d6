"""Find the one class that each module of a folder defines, so that a new file is registered because it exists."""

import importlib
import inspect
import pkgutil
from functools import cache
from typing import TypeVar

from unweave.errors import UserError, nearest

T = TypeVar("T")


@cache
def classes_in(package: str, base: type[T]) -> dict[str, type[T]]:
    """Module name to the single final subclass of ``base`` that the module defines, in alphabetical order."""
    found: dict[str, type[T]] = {}
    folder = importlib.import_module(package)
    for info in pkgutil.iter_modules(folder.__path__):
        module = importlib.import_module(f"{package}.{info.name}")
        own = [
            member
            for _, member in inspect.getmembers(module, inspect.isclass)
            if issubclass(member, base) and member is not base and member.__module__ == module.__name__
        ]
        assert len(own) <= 1, f"{module.__name__} defines {len(own)} classes of kind {base.__name__}, expected one"
        if own:
            found[info.name] = own[0]
    return found


def lookup(name: str, known: dict[str, T], kind: str) -> T:
    """The entry called ``name``, or an error that lists what there is."""
    if name not in known:
        raise UserError(f"unknown {kind} {name!r}{nearest(name, known)} (known: {', '.join(known)})")
    return known[name]
