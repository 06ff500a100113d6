"""Configs beside other people's weights: JSON and YAML objects, and getters that say what came and what was expected.

A getter without a default needs the key; with one, a key that is missing or null gives the default.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from unweave.errors import UserError

T = TypeVar("T")
_LARGEST = 16 * 2**20
"""Bytes of a config; they have a few thousand, and one that claims more is something else."""


def read_json_object(path: Path) -> dict[str, Any]:
    """The object of a JSON file; raises ``UserError`` where there is none."""
    return _object(path, json.loads, "JSON")


def read_yaml_object(path: Path) -> dict[str, Any]:
    """The mapping of a YAML file, read without making Python objects; raises ``UserError`` where there is none."""
    return _object(path, yaml.safe_load, "YAML")


def peek(path: Path) -> dict[str, Any]:
    """The object of a JSON or YAML file by its suffix, empty where it cannot be read; for ``recognises``."""
    try:
        return read_json_object(path) if path.suffix == ".json" else read_yaml_object(path)
    except UserError:
        return {}


def integer(config: Mapping[str, Any], key: str, path: Path, default: int | None = None) -> int:
    """A whole number; ``8.0`` counts as one, since JSON written elsewhere may have it so."""
    value = _required(config, key, path, default, "a whole number")
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return _typed(value, int, key, path, "a whole number")


def number(config: Mapping[str, Any], key: str, path: Path, default: float | None = None) -> float:
    """A finite number."""
    value = _required(config, key, path, default, "a number")
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1000:
        value = float(value)
    value = _typed(value, float, key, path, "a number")
    if abs(value) == float("inf") or value != value:
        raise _wrong(value, key, path, "a finite number")
    return value


def text(config: Mapping[str, Any], key: str, path: Path, default: str | None = None) -> str:
    """A text."""
    return _typed(_required(config, key, path, default, "a text"), str, key, path, "a text")


def flag(config: Mapping[str, Any], key: str, path: Path, default: bool | None = None) -> bool:
    """True or false."""
    return _typed(_required(config, key, path, default, "true or false"), bool, key, path, "true or false")


def section(config: Mapping[str, Any], key: str, path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    """An object inside."""
    return _typed(_required(config, key, path, default, "an object"), dict, key, path, "an object")


def texts(config: Mapping[str, Any], key: str, path: Path, default: list[str] | None = None) -> list[str]:
    """A list of texts."""
    values = _typed(_required(config, key, path, default, "a list of texts"), list, key, path, "a list of texts")
    return [_typed(value, str, key, path, "a list of texts") for value in values]


def choice(config: Mapping[str, Any], key: str, path: Path, known: tuple[str, ...], default: str | None = None) -> str:
    """One of some texts."""
    value = text(config, key, path, default)
    if value not in known:
        raise _wrong(value, key, path, "one of " + ", ".join(known))
    return value


def _object(path: Path, parse: Any, kind: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            raise UserError(f"{str(path)!r} has {path.stat().st_size} bytes, which is no config")
        content = parse(path.read_bytes().decode())
    except FileNotFoundError:
        raise UserError(f"there is no {path.name!r} in {str(path.parent)!r}; give the folder of a dictionary") from None
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}; check that it is a file you may read") from error
    except UserError:
        raise
    except (ValueError, RecursionError, yaml.YAMLError, TypeError, AttributeError, LookupError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{str(path)!r} is no {kind} ({reason}); fetch or copy it again") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{str(path)!r} holds {type(content).__name__}, expected settings by name")
    return content


def _required(config: Mapping[str, Any], key: str, path: Path, default: object, expected: str) -> Any:
    value = config.get(key)
    if value is None and default is None:
        what = "null" if key in config else "missing"
        raise UserError(f"{key!r} in {str(path)!r} is {what}, expected {expected}")
    return default if value is None else value


def _typed(value: Any, kind: type[T], key: str, path: Path, expected: str) -> T:
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise _wrong(value, key, path, expected)
    return value


def _wrong(value: Any, key: str, path: Path, expected: str) -> UserError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return UserError(f"{key!r} in {str(path)!r} is {shown}, expected {expected}")
