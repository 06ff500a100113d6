"""A recipe with several values for a setting asks for a coder of each, all trained in one pass of the model.

``coder.k = [16, 32]`` is such a list, because ``k`` is one number. For a setting whose one value may itself be a list,
such as ``site``, the section ``[sweep]`` lists the values: ``site = ["layers.1.resid_post", "layers.2.resid_post"]``.
Settings of ``[coder]`` that only some of several architectures have go to those.
"""

import itertools
import re
import typing
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple

from unweave.coders import architecture, trainable, trainable_architectures
from unweave.config import apply_overrides
from unweave.errors import UserError

SHARED_IN_TRAINING = ("rows", "batch", "latent_parts", "buffer", "log_every", "resample_at", "resample_rows")
_OWN = ("seed", "site", "target", "skip", "start")
"""Settings outside of [coder] and [training] in which coders of one pass may differ."""


class Cell(NamedTuple):
    """One point of a grid."""

    name: str
    values: dict[str, Any]
    """The recipe of this coder alone."""


def cells(values: dict[str, Any], recipe: type) -> list[Cell]:
    """All points of the grid in a recipe's values, architecture by architecture; one if there is no list.

    ``recipe``: the config class of the recipe's sections. Raises ``UserError`` for lists where coders of one pass
    cannot differ.
    """
    values = dict(values)
    axes = dict(_listed(values.pop("sweep", {}), "sweep"))
    coder = values.get("coder")
    chosen = axes.pop("coder.type", coder.get("type") if isinstance(coder, dict) else None)
    types = [name for name in (chosen if isinstance(chosen, list) else [chosen]) if isinstance(name, str)]
    if not types or not isinstance(coder, dict):
        raise UserError(f"a recipe needs coder.type, one of: {', '.join(trainable_architectures())}")
    several = len(types) > 1
    known = {name: {field.name for field in fields(trainable(name).Config)} for name in types}
    anywhere = set().union(*known.values())
    found = []
    for name in types:
        of_type = {key: value for key, value in coder.items() if key in known[name] or key not in anywhere}
        single = values | {"coder": of_type | {"type": name}}
        own = {axis: choices for axis, choices in axes.items() if _applies(axis, known[name], anywhere)}
        own |= _implied(single, recipe, architecture(name).Config)
        for key in own:
            _check(key)
        found += list(_points(name, single, own, several=several))
    if len({cell.name for cell in found}) < len(found):
        raise UserError("the grid has the same coder twice; remove repeated values")
    return found


def _points(architecture_name: str, values: dict[str, Any], axes: dict[str, list], *, several: bool) -> Iterator[Cell]:
    for choice in itertools.product(*axes.values()):
        parts = [architecture_name] if several or not axes else []
        point = values
        for key, value in zip(axes, choice, strict=True):
            point = apply_overrides(point, [])
            *path, last = key.split(".")
            node = point
            for part in path:
                node = node.setdefault(part, {})
            node[last] = value
            parts.append(_label(last, value))
        yield Cell("-".join(parts), point)


def _label(name: str, value: Any) -> str:
    if isinstance(value, list):
        return "+".join(_label("", item) for item in value)
    text = re.sub(r"[^\w.+]", "_", str(value))
    return text if isinstance(value, str) else f"{name}{text}"


def _listed(section: Any, path: str) -> Iterator[tuple[str, list]]:
    """Dotted key and values of each axis in the section [sweep]."""
    if not isinstance(section, dict):
        raise UserError(f"{path} is a section with lists of values, got {section!r}")
    for key, value in section.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{inner}", values) for inner, values in _listed(value, f"{path}.{key}"))
        elif isinstance(value, list) and value:
            yield key, value
        else:
            raise UserError(f"{path}.{key} needs a list of values, got {value!r}")


def _implied(values: dict[str, Any], recipe: type, coder: type) -> dict[str, list]:
    """Axes written as a list at a setting whose one value is no list."""
    axes = {}
    hints = typing.get_type_hints(recipe)
    sections: dict[str, tuple[dict, dict]] = {
        "": (values, hints),
        "coder": (values["coder"], typing.get_type_hints(coder)),
    }
    for key, value in values.items():
        if key != "coder" and isinstance(value, dict) and key in hints:
            sections[key] = (value, typing.get_type_hints(hints[key]))
    for section, (content, known) in sections.items():
        for key, value in content.items():
            if isinstance(value, list) and key in known and not _takes_list(known[key]):
                if not value:
                    raise UserError(f"setting {_joined(section, key)!r} is an empty list; give at least one value")
                axes[_joined(section, key)] = value
    return axes


def _takes_list(hint: Any) -> bool:
    origins = {typing.get_origin(part) or part for part in (hint, *typing.get_args(hint))}
    return bool(origins & {tuple, list})


def _applies(axis: str, known: set[str], anywhere: set[str]) -> bool:
    section, _, key = axis.partition(".")
    return section != "coder" or key in known or key not in anywhere


def _check(key: str) -> None:
    section, _, name = key.partition(".")
    if key in _OWN or section == "coder" or (section == "training" and name not in SHARED_IN_TRAINING):
        return
    raise UserError(f"setting {key!r} has several values, but coders of one pass share it; make a run for each")


def _joined(section: str, key: str) -> str:
    return f"{section}.{key}" if section else key
