"""Join a module and what it imports into one classic script, since a page from file:// may not load modules.

Each module becomes a function that gives what the module exports, so names of one module are never seen by another.
What modules may hold is plain: imports by name, one file beside the other, and declarations with ``export`` before
them.
"""

import re
from collections.abc import Mapping

_IMPORT = re.compile(r'^import\s+(?:\{(?P<names>[^}]*)\}\s+from\s+)?"\./(?P<file>[\w.-]+)";[ \t]*$', re.MULTILINE)
_EXPORT = re.compile(
    r"^export\s+(?=(?:async\s+)?(?:function\*?|const|class)\s+(?P<name>[A-Za-z_$][\w$]*))", re.MULTILINE
)
_LEFT = re.compile(r"^\s*(?:import|export)\b.*|\bimport\s*\(.*|\bimport\.meta\b.*", re.MULTILINE)


def bundle(entry: str, sources: Mapping[str, str], instead: Mapping[str, str] | None = None) -> str:
    """A classic script that does what the module ``entry`` does.

    ``sources``: text of each file by its name. ``instead``: files to take in the place of others, under their names.
    """
    order: list[str] = []
    _visit(entry, sources, instead or {}, order, [])
    parts = [_wrapped(name, sources[(instead or {}).get(name, name)]) for name in order]
    return "\n".join(['"use strict";', "(() => {", "const modules = {};", *parts, "})();", ""])


def _visit(
    name: str, sources: Mapping[str, str], instead: Mapping[str, str], order: list[str], path: list[str]
) -> None:
    """Append a module behind all that it imports."""
    assert name not in path, f"modules import each other: {' -> '.join([*path, name])}"
    if name in order:
        return
    for match in _IMPORT.finditer(sources[instead.get(name, name)]):
        _visit(match["file"], sources, instead, order, [*path, name])
    order.append(name)


def _wrapped(name: str, source: str) -> str:
    exported = [match["name"] for match in _EXPORT.finditer(source)]
    body = _EXPORT.sub("", _IMPORT.sub(_taken, source))
    left = _LEFT.search(body)
    assert left is None, f"{name} has an import or export of a kind that is not joined: {left and left[0]!r}"
    return f'modules["{name}"] = (() => {{\n{body.rstrip()}\nreturn {{ {", ".join(exported)} }};\n}})();'


def _taken(match: re.Match[str]) -> str:
    """What an import is inside a function."""
    if match["names"] is None:
        return ""
    names = re.sub(r"\s+as\s+", ": ", match["names"].strip())
    return f'const {{ {names} }} = modules["{match["file"]}"];'
