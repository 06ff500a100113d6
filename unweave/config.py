"""Configs are frozen dataclasses in code and TOML on disk; an unknown key is an error that names near matches."""

import ast
import inspect
import tomllib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, TypeVar

import tomli_w
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from unweave.errors import UserError, nearest

T = TypeVar("T")


class Field(NamedTuple):
    """What a person wants to know of one setting."""

    name: str
    type: str
    default: str
    doc: str


def parse_toml(text: str, origin: str) -> dict[str, Any]:
    """A TOML text as nested dictionaries; ``origin`` names it in the error."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{origin} is not valid TOML: {error}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as nested dictionaries."""
    try:
        return parse_toml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        raise UserError(f"there is no file {str(path)!r}; give the path of a TOML recipe") from error
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise UserError(f"{str(path)!r} is not a TOML text file") from error


def to_toml(config: Any) -> str:
    """A config as TOML text that ``build`` reads back to an equal config."""
    return tomli_w.dumps(_without_none(asdict(config)))


def apply_overrides(values: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Set dotted keys, each given as a line of TOML such as ``coder.k=64``; a bare word is read as a string."""
    merged = _copy(values)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            raise UserError(f"an override is written key=value, got {override!r}; for example coder.k=64")
        table, *path = key.strip().split(".")[::-1]
        node = merged
        for name in reversed(path):
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise UserError(f"override {override!r} goes through {name!r}, which is a value, not a section")
        node[table] = _toml_value(text.strip())
    return merged


def build(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """A config of type ``cls`` from nested dictionaries; errors name the key, what came and the nearest valid key."""
    _check_keys(cls, values, where)
    try:
        return _adapter(cls).validate_python(dict(values))
    except ValidationError as error:
        raise UserError(_first_problem(error, cls, where)) from error


def describe(cls: type) -> list[Field]:
    """The settings of a config class: name, type, default and the docstring under each field."""
    hints = typing.get_type_hints(cls)
    docs = field_docs(cls)
    rows = []
    for field in fields(cls):
        if field.default is not MISSING:
            default = repr(field.default)
        elif field.default_factory is not MISSING:
            default = "a section of its own" if is_dataclass(hints[field.name]) else repr(field.default_factory())
        else:
            default = "required"
        hint = hints[field.name]
        name = str(hint).replace("typing.", "") if typing.get_args(hint) else hint.__name__
        rows.append(Field(field.name, name, default, docs.get(field.name, "")))
    return rows


def field_docs(cls: type) -> dict[str, str]:
    """The string written under each field of a dataclass and of its bases."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not is_dataclass(base):
            continue
        body = ast.parse(inspect.cleandoc(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for node, after in zip(body.body, body.body[1:], strict=False):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(after, ast.Expr):
                docs[node.target.id] = ast.literal_eval(after.value)
    return docs


@cache
def _adapter(cls: Any) -> Any:
    return TypeAdapter(with_config(ConfigDict(extra="forbid", strict=False))(cls))


def _check_keys(cls: Any, values: Mapping[str, Any], where: str) -> None:
    known = {field.name: field for field in fields(cls)}
    hints = typing.get_type_hints(cls)
    for key, value in values.items():
        path = f"{where}.{key}" if where else key
        if key not in known:
            listing = ", ".join(known)
            raise UserError(f"unknown setting {path!r}{nearest(key, known)} (known here: {listing})")
        inner = hints[key]
        types = typing.get_args(inner) if isinstance(inner, UnionType) else (inner,)
        if isinstance(value, bool) and {int, float} & set(types):
            raise UserError(f"setting {path!r} is a number, got {value!r}")
        if is_dataclass(inner) and isinstance(inner, type):
            if not isinstance(value, Mapping):
                raise UserError(f"setting {path!r} is a section, got the value {value!r}")
            _check_keys(inner, value, path)


def _first_problem(error: ValidationError, cls: type, where: str) -> str:
    problem = error.errors()[0]
    path = ".".join([*([where] if where else []), *_setting(cls, problem["loc"])])
    if problem["type"] == "value_error":
        return str(problem.get("ctx", {})["error"])  # raised by a config's own check, already a sentence
    if problem["type"] == "missing":
        return f"setting {path!r} is missing"
    return f"setting {path!r}: {problem['msg'].lower()}, got {problem['input']!r}"


def _setting(cls: Any, location: tuple[int | str, ...]) -> Iterator[str]:
    """Sections, setting and index of a value, without the one of several types that pydantic tried on it."""
    for part in location:
        if is_dataclass(cls):
            cls = typing.get_type_hints(cls)[str(part)]
            yield str(part)
        elif isinstance(part, int):
            yield str(part)


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _copy(values: Any) -> Any:
    return {key: _copy(value) for key, value in values.items()} if isinstance(values, dict) else values


def _without_none(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _without_none(value) for key, value in values.items() if value is not None}
    return list(values) if isinstance(values, tuple) else values
