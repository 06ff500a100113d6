"""Well-known releases of dictionaries by short name: where their files are and where they belong.

``releases.toml`` has the facts. ``gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82`` is a release and the id of a
dictionary in it, with which ``find`` says what to fetch.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from unweave.errors import UserError, nearest
from unweave.formats.dictionaries import Place

_BRACES = re.compile(r"\{(\w+)\}")
_KINDS = {"layer": r"\d+", "folder": r"[\w.+/-]+"}
"""What stands in braces where it is not any text without a slash."""


class Release(NamedTuple):
    """Dictionaries that were published together; texts have braces where they differ."""

    name: str
    repository: str
    """Id on the hub, or the address of a folder on the web."""
    format: str
    model: str
    """Name of the language model; empty where the files say it."""
    id: str
    """What the ids of most dictionaries look like."""
    paths: Mapping[str, str]
    """The folder or file in the repository by what an id looks like, the first that fits."""
    files: tuple[str, ...]
    """What to fetch of a dictionary; one that ends in ``?`` need not be there."""
    site: str = ""
    target: str = ""
    layers: tuple[int, ...] = ()
    """Its layers, where they are known."""
    whole: bool = False
    """Whether its name alone means all of it."""
    values: Mapping[str, Mapping[str, str]] = {}
    """How a value in braces is spelt in paths."""
    l0: Mapping[str, Any] = {}
    """What ``{l0}`` is, by width and layer."""
    config: Mapping[str, Any] = {}
    """What the files' own config should say and does not."""
    configs: Mapping[str, Mapping[str, Any]] = {}
    """The same for one dictionary, by its id."""


class Found(NamedTuple):
    """What to fetch for a short name, and how to read it."""

    name: str
    repository: str
    path: str
    """The folder or file to read, below the repository; empty for the whole of it."""
    files: tuple[str, ...]
    """What has to be there; empty where it is not known what is needed."""
    optional: tuple[str, ...]
    """Files, or patterns of files, that need not be there."""
    place: Place
    format: str
    """Empty where it is not known."""
    config: Mapping[str, Any] = {}
    """What the config in the files should say and does not."""


@cache
def releases() -> dict[str, Release]:
    """Every release by name."""
    facts = tomllib.loads((Path(__file__).parent / "releases.toml").read_text(encoding="utf-8"))
    by_format = facts.pop("files")
    return {release.name: release for name, entry in facts.items() for release in _expanded(name, entry, by_format)}


def find(short_name: str) -> Found:
    """Where a dictionary, or the whole of a release, is; raises ``UserError`` for a name that is not known.

    ``hf:owner/repository/folder`` is any folder or file on the hub.
    """
    if short_name.startswith("hf:"):
        return _on_the_hub(short_name)
    name, _, id = short_name.partition("/")
    known = releases()
    if name not in known:
        hint = nearest(name, known)
        raise UserError(
            f"there is no folder {short_name!r}, and no release {name!r}{hint}; `unweave releases` lists them"
        )
    release = known[name]
    return _whole(release) if not id else _one(release, id)


def _on_the_hub(address: str) -> Found:
    match = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)(?:/(.+?))?/?", address)
    path = (match[2] or "") if match else ""
    if match is None or ".." in path.split("/"):
        raise UserError(f"{address!r} is no place on the hub; give hf:owner/repository/folder")
    wanted = (path, f"{path}/*", "config.json", "config.yaml") if path else ("*",)
    return Found(address, match[1], path, (), wanted, Place(), "")


def _expanded(name: str, entry: dict[str, Any], by_format: dict[str, list[str]]) -> Iterator[Release]:
    """The releases that a table stands for: one, or one for each value of what differs."""
    each: dict[str, list[str]] = entry.pop("each", {})
    paths: dict[str, str] = entry.pop("paths", {})
    if "path" in entry or not paths:
        paths = {**paths, entry["id"]: entry.pop("path", entry["id"])}
    entry.setdefault("files", by_format.get(entry["format"], ["{path}"]))
    entry.setdefault("model", "")
    layers = entry.pop("layers", ())
    entry["layers"] = tuple(range(layers)) if isinstance(layers, int) else tuple(layers)
    for values in product(*each.values()):
        names = dict(zip(each, values, strict=True))
        texts: dict[str, Any] = {key: _filled(value, names) for key, value in entry.items() if isinstance(value, str)}
        texts |= {"files": tuple(_filled(file, names) for file in entry["files"])}
        texts |= {"paths": {_filled(id, names): _filled(path, names) for id, path in paths.items()}}
        yield Release(**{"name": _filled(name, names), **entry, **texts})


def _one(release: Release, id: str) -> Found:
    fitting = [(pattern, match) for pattern in release.paths if (match := re.fullmatch(_pattern(pattern), id))]
    if not fitting or ".." in id.split("/"):
        hint = nearest(id, release.paths)
        raise UserError(f"release {release.name!r} has no dictionary {id!r}{hint}; its ids look like {release.id}")
    path, values = release.paths[fitting[0][0]], fitting[0][1].groupdict()
    if usual := re.fullmatch(_pattern(release.id), id):
        values = {**usual.groupdict(), **values}
    layer = values.get("layer", "")
    if release.layers and layer and int(layer) not in release.layers:
        raise UserError(f"release {release.name!r} has no layer {layer}; it has {_listed(release.layers)}")
    if "{l0}" in path and "l0" not in values:
        values["l0"] = _l0(release, values, id)
    place = Place(release.model, _filled(release.site, values), _filled(release.target, values))
    spelt = {key: release.values.get(key, {}).get(value, value) for key, value in values.items()}
    found = _found(release, f"{release.name}/{id}", _filled(path, spelt), spelt, place)
    return found._replace(config={**release.config, **release.configs.get(id, {})})


def _whole(release: Release) -> Found:
    if not release.whole:
        example = _BRACES.sub(lambda match: f"<{match[1]}>", release.id)
        raise UserError(f"say which dictionary of release {release.name!r}, as {release.name}/{example}")
    if "{layer}" not in release.id:
        return _one(release, release.id)._replace(name=release.name)
    found = [_one(release, _filled(release.id, {"layer": str(layer)})) for layer in release.layers]
    files = dict.fromkeys(file for one in found for file in one.files)
    place = Place(release.model, release.site, release.target)
    return found[0]._replace(name=release.name, path="", files=tuple(files), place=place)


def _found(release: Release, name: str, path: str, values: Mapping[str, str], place: Place) -> Found:
    stem = path.rpartition(".")[0]
    files = [_filled(file, {**values, "path": path, "stem": stem}) for file in release.files]
    optional = tuple(file.removesuffix("?") for file in files if file.endswith("?"))
    needed = tuple(file for file in files if not file.endswith("?"))
    return Found(name, release.repository, path, needed, optional, place, release.format)


def _l0(release: Release, values: Mapping[str, str], id: str) -> str:
    by_layer = release.l0.get(values["width"])
    layer = values["layer"]
    if isinstance(by_layer, list) and int(layer) < len(by_layer):
        return str(by_layer[int(layer)])
    if isinstance(by_layer, dict) and layer in by_layer:
        return str(by_layer[layer])
    widths = ", ".join(release.l0)
    raise UserError(f"release {release.name!r} has no dictionary {id!r}; it has some layers of widths {widths}")


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _BRACES.sub(lambda match: values.get(match[1], match[0]), text)


def _pattern(id: str) -> str:
    parts = re.split(r"(\{\w+\})", id)
    return "".join(_group(part[1:-1]) if part.startswith("{") else re.escape(part) for part in parts)


def _group(name: str) -> str:
    kind = _KINDS.get(name, r"[\w.+-]+")
    return f"(?P<{name}>{kind})"


def _listed(layers: tuple[int, ...]) -> str:
    if layers == tuple(range(len(layers))):
        return f"layers 0 to {len(layers) - 1}"
    return "layers " + ", ".join(map(str, layers))
