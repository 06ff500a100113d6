"""What all pages share: the HTML around their body, and the files that they load."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template

_STATIC = files("unweave.pages") / "static"
_ASSETS = (".css", ".js", ".svg")
_STYLES = {"report": "report.css", "browser": "latents.css"}


def page(body: str, kind: str, title: str, scripts: Sequence[str], texts: Mapping[str, str]) -> str:
    """A whole page from the template ``body``; ``texts`` are HTML and fill it in. ``kind``: report or browser."""
    tags = "\n".join(f'<script defer src="{source}"></script>' for source in scripts)
    return _filled(
        "shell.html",
        {
            "title": escape(title),
            "style": _STYLES[kind],
            "scripts": tags,
            "kind": kind,
            "body": _filled(body, texts).rstrip("\n"),
        },
    )


def assets() -> dict[str, str]:
    """Relative path to content of each file that pages load."""
    from plotly.offline import get_plotlyjs  # slow to import, and only pages with charts need it

    found = {f"assets/{f.name}": f.read_text("utf-8") for f in _STATIC.iterdir() if f.name.endswith(_ASSETS)}
    return found | {"assets/plotly.min.js": get_plotlyjs()}


def _filled(name: str, texts: Mapping[str, str]) -> str:
    return Template((_STATIC / name).read_text("utf-8")).substitute(texts)
