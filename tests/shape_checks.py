"""Shapes are checked in tests: every function of unweave that names some is called through beartype and jaxtyping.

jaxtyping has an import hook of its own. It also checks what pyright has proved already, looks at arguments twice, and
wraps a function within a function each time that it is made, which takes a good share of the time of all tests. Here
only functions of modules and classes that have shapes in their annotations are wrapped, on their first call, and so are
the fields of dataclasses. pytest loads this before it imports anything of the package.
"""

import ast
import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any, get_args, get_type_hints

from beartype import beartype
from jaxtyping import AbstractArray, config, jaxtyped

PACKAGE = "unweave"
_OWN_SIZES: Any = jaxtyped("context")
"""Within it, names of sizes mean what they mean to one call."""
_CHECKED = "__shape_checked__"


def pytest_load_initial_conftests() -> None:
    """Check what is imported from here on."""
    sys.meta_path.insert(0, _Finder())


def checked(thing: Any) -> Any:
    """A function or a dataclass whose shapes are checked; anything else as it is."""
    if isinstance(thing, type):
        if dataclasses.is_dataclass(thing) and "__init__" in vars(thing):
            thing.__init__ = checked(thing.__init__)
        return thing
    if not any(map(_has_shape, thing.__annotations__.values())):
        return thing
    with_checks: list[Callable[..., Any]] = []

    @functools.wraps(thing)
    def call(*args: Any, **kwargs: Any) -> Any:
        if config.jaxtyping_disable:
            return thing(*args, **kwargs)
        if not with_checks:
            names = thing.__globals__
            thing.__annotations__ = {name: _resolved(hint, names) for name, hint in thing.__annotations__.items()}
            with_checks.append(beartype(thing))
        with _OWN_SIZES:
            return with_checks[0](*args, **kwargs)

    return call


def _has_shape(hint: Any) -> bool:
    if isinstance(hint, str):
        return "[" in hint
    return (isinstance(hint, type) and issubclass(hint, AbstractArray)) or any(map(_has_shape, get_args(hint)))


def _resolved(hint: Any, names: dict[str, Any]) -> Any:
    """A hint in which nothing is quoted; anything may be where only a type checker knows the name."""

    def holder() -> None: ...

    holder.__annotations__ = {"it": hint}
    try:
        return get_type_hints(holder, names, include_extras=True)["it"]
    except NameError:
        return Any


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != PACKAGE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> Any:
        """Compiled anew: the code on disk is without checks."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:
        tree = ast.parse(data, path)
        for body in (tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))):
            for node in body.body:
                # a dataclass is made by its decorators first; what decorates a function may change what it returns
                if isinstance(node, ast.ClassDef):
                    node.decorator_list.insert(0, _decorator(node))
                elif isinstance(node, ast.FunctionDef):
                    node.decorator_list.append(_decorator(node))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, _CHECKED, checked)
        super().exec_module(module)


def _decorator(node: ast.stmt) -> ast.expr:
    return ast.copy_location(ast.Name(_CHECKED, ast.Load()), node)
