"""Write docs/map.md: every module of the package with the first sentence of its docstring, room by room."""

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "unweave"


def main() -> None:
    (ROOT / "docs" / "map.md").write_text(code_map(), encoding="utf-8")


def code_map() -> str:
    """The page's text, rooms in the order of the import contract."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = project["tool"]["importlinter"]["contracts"][0]
    rooms = [room.strip() for layer in contract["layers"] for room in layer.split("|")]
    lines = [
        "# Map of the code",
        "",
        "Imports go from the top of this page to the bottom. Each line is the first sentence of the module itself;",
        "`python tools/make_map.py` writes the page anew.",
        "",
    ]
    for room in rooms:
        lines += [f"## {room}", ""]
        path = PACKAGE / room
        modules = sorted(path.rglob("*.py")) if path.is_dir() else [PACKAGE / f"{room}.py"]
        for module in modules:
            name = module.relative_to(ROOT).as_posix()
            lines.append(f"- `{name}`: {_sentence(module)}")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _sentence(module: Path) -> str:
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
    assert docstring, f"{module} has no docstring"
    return docstring.split("\n\n")[0].replace("\n", " ")


if __name__ == "__main__":
    main()
