"""Write docs/settings.md: every section of a recipe and every coder type, from the code that reads them."""

import inspect
import sys
from dataclasses import is_dataclass
from pathlib import Path

from unweave.coders import trainable_architectures
from unweave.config import Field, describe
from unweave.pipelines.recipe import Recipe, configurable

ROOT = Path(__file__).parent.parent

HEAD = """\
# Settings

A recipe is a TOML file. Every setting has a default, except `coder.type`. Any setting can be changed on the command
line, as `unweave train demo training.lr=2e-3`; a name that does not exist is an error that suggests the nearest one.
`unweave describe training` prints a section of this page in the terminal.

`python tools/make_reference.py` writes this page from the code that reads recipes.
"""
TOP = """\
## The top of a recipe

These stand before the first section.
"""
CODERS = """\
## The coder

`[coder]` has a `type`, and the settings of that type. Each type is one file of the package.
"""


def main() -> None:
    (ROOT / "docs" / "settings.md").write_text(settings_page(), encoding="utf-8")


def settings_page() -> str:
    """The page's text: the recipe's sections in the order of a recipe, then the coder types."""
    sections = {name: config for name, config in configurable().items() if config is not Recipe}
    parts = [HEAD, TOP, _table(describe(Recipe), [name for name in _settings(Recipe) if name not in sections])]
    for name, config in sections.items():
        if not name.startswith("coder."):
            parts += [f"## `[{name}]`\n", f"{inspect.getdoc(config)}\n", _table(describe(config), _settings(config))]
    parts.append(CODERS)
    for name, architecture in trainable_architectures().items():
        config = sections[f"coder.{name}"]
        parts += [f'### `type = "{name}"`\n', f"```text\n{_maths(architecture)}\n```\n"]
        parts.append(_table(describe(config), _settings(config)))
    return "\n".join(parts)


def _settings(config: type) -> list[str]:
    return [field.name for field in describe(config)]


def _table(fields: list[Field], names: list[str]) -> str:
    rows = [
        f"| `{field.name}` | {_type(field.type)} | `{_as_toml(field.default)}` | {_cell(field.doc)} |"
        for field in fields
        if field.name in names
    ]
    return "\n".join(["| setting | type | default | what it does |", "| --- | --- | --- | --- |", *rows, ""])


def _maths(architecture: type) -> str:
    """The docstring of the module that defines an architecture."""
    docstring = inspect.getdoc(sys.modules[architecture.__module__])
    assert docstring and is_dataclass(architecture.Config), f"{architecture.__module__} has no docstring"
    return docstring


def _as_toml(default: str) -> str:
    """A default as one writes it in a recipe."""
    if default in ("True", "False"):
        return default.lower()
    return f'"{default[1:-1]}"' if default.startswith("'") else default


def _type(name: str) -> str:
    """A type in words: the values themselves where there are only a few."""
    if name.startswith("Literal["):
        return ", ".join(f"`{_as_toml(value.strip())}`" for value in name.removeprefix("Literal[")[:-1].split(","))
    return f"`{name}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
