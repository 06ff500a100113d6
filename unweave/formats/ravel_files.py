"""RAVEL's entities (Huang et al. 2024, arXiv 2402.17700): JSON files in a folder, or tables of a data set.

A folder has for each kind of entity, say ``city``:

    ravel_city_entity_attributes.json    entity to attribute to value
    ravel_city_attribute_to_prompts.json attribute to templates, each with %s for the entity
    ravel_city_entity_to_split.json      entity to train, val or test; may be missing

A data set (``hij/ravel`` has cities) has the subsets ``city_entity``, one column for the entity and one for each
attribute, and ``city_prompt`` with the columns ``Template`` and ``Attribute``; its splits are those of the entities.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unweave.errors import UserError, nearest
from unweave.formats.hub import open_split

SLOT = "%s"
"""Where in a template the entity stands."""
_ATTRIBUTES, _PROMPTS, _SPLITS = "entity_attributes", "attribute_to_prompts", "entity_to_split"
_SPLIT_NAMES = ("train", "val", "test")


class RavelRecords(NamedTuple):
    """What is known of one kind of entity."""

    kind: str
    values: dict[str, dict[str, str]]
    """Entity to attribute to value."""
    templates: dict[str, list[str]]
    """Attribute to templates; attributes without one are left out."""
    splits: dict[str, str]
    """Entity to split; empty where the files do not say."""


def ravel_records(source: str, kind: str = "") -> RavelRecords:
    """The entities of a folder, or of a data set (``hf:`` and its id); ``kind`` may be empty for a folder with one.

    Raises ``UserError`` where files are missing or are not of this form, or the hub does not answer.
    """
    if source.startswith("hf:"):
        return _of_tables(source, kind)
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise UserError(f"there is no folder {source!r} with RAVEL's files; give one, or hf: and the id of a data set")
    kind = kind or _only_kind(folder)
    values = _object(folder, kind, _ATTRIBUTES)
    prompts = _object(folder, kind, _PROMPTS)
    has_splits = _file(folder, kind, _SPLITS).is_file()
    splits = {
        str(entity): str(split) for entity, split in (_object(folder, kind, _SPLITS) if has_splits else {}).items()
    }
    return _checked(source, kind, values, prompts, splits)


def _checked(
    source: str, kind: str, values: Mapping[str, Any], prompts: Mapping[str, Any], splits: dict[str, str]
) -> RavelRecords:
    for entity, attributes in values.items():
        if not isinstance(attributes, Mapping):
            raise UserError(f"{source!r} has no attributes for the {kind} {entity!r}, but {str(attributes)[:40]!r}")
    for attribute, templates in prompts.items():
        if not isinstance(templates, list) or not all(isinstance(template, str) for template in templates):
            raise UserError(f"{source!r} has no list of templates for {attribute!r}, but {str(templates)[:40]!r}")
    told = {
        entity: {name: str(value) for name, value in attributes.items() if value is not None and str(value).strip()}
        for entity, attributes in values.items()
    }
    templates = {name: [text for text in found if text.count(SLOT) == 1] for name, found in prompts.items()}
    return RavelRecords(kind, told, {name: found for name, found in templates.items() if found}, splits)


def _file(folder: Path, kind: str, what: str) -> Path:
    return folder / f"ravel_{kind}_{what}.json"


def _kinds(folder: Path) -> list[str]:
    files = sorted(folder.glob(f"ravel_*_{_ATTRIBUTES}.json"))
    return [file.name.removeprefix("ravel_").removesuffix(f"_{_ATTRIBUTES}.json") for file in files]


def _only_kind(folder: Path) -> str:
    kinds = _kinds(folder)
    if len(kinds) == 1:
        return kinds[0]
    if kinds:
        raise UserError(f"{str(folder)!r} has entities of the kinds {', '.join(kinds)}; choose one, as in #{kinds[0]}")
    raise UserError(f"{str(folder)!r} has no file ravel_..._{_ATTRIBUTES}.json; give a folder with RAVEL's files")


def _object(folder: Path, kind: str, what: str) -> dict[str, Any]:
    path = _file(folder, kind, what)
    if not path.is_file():
        raise UserError(f"{str(folder)!r} has no {path.name}, which is needed{nearest(kind, _kinds(folder))}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{str(path)!r} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{str(path)!r} holds a {type(found).__name__}, not an object; it is not a file of RAVEL")
    return found


def _of_tables(source: str, kind: str) -> RavelRecords:
    if not kind:
        raise UserError(f"a data set may have several kinds of entities; say which, as in {source}#city")
    prompts: dict[str, list[str]] = {}
    for split in _SPLIT_NAMES:
        for row in open_split(source, split, f"{kind}_prompt", "task"):
            if row.get("Attribute") and row.get("Template"):
                prompts.setdefault(str(row["Attribute"]), []).append(str(row["Template"]))
    values, splits = {}, {}
    for split in _SPLIT_NAMES:
        for row in open_split(source, split, f"{kind}_entity", "task"):
            column = next((name for name in row if name.lower() == kind.lower()), None)
            if column is None:
                raise UserError(f"table {kind}_entity of {source!r} has no column {kind!r}, but {', '.join(row)}")
            values[str(row[column])] = {name: row[name] for name in prompts if name in row}
            splits[str(row[column])] = split
    return _checked(source, kind, values, {name: list(dict.fromkeys(found)) for name, found in prompts.items()}, splits)
