"""Pages in a folder that a browser opens with no network: their HTML, the script that draws each, and its files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from string import Template

from unweave.pages.bundle import bundle

STATIC = files("unweave.pages") / "static"
INSTEAD = {"api.js": "folder_api.js", "state.js": "folder_state.js"}
"""Modules that take the place of those which ask a server."""
_ASSETS = ("app.css", "icon.svg", "theme.js", "store.js")
"""What every page loads."""


@dataclass(frozen=True, kw_only=True)
class FolderPage:
    """One page."""

    file: str
    name: str
    """That of its script in ``assets``."""
    module: str
    """Draws it."""
    title: str
    styles: Sequence[str] = ()
    data: Sequence[str] = ()
    """Scripts of ``data`` that are there when it is drawn."""
    body: str = ""
    """HTML that is there before it is drawn."""
    has_charts: bool = False
    """Whether it draws with Plotly."""


def page_files(pages: Sequence[FolderPage], *, home: str, run: str = "") -> dict[str, str]:
    """Relative path to content of the pages and of all that they load but their data.

    ``home``: how the first page is called. ``run``: name in addresses of the only run that the folder shows.
    """
    styles = {style for page in pages for style in page.styles}
    found = {f"assets/{name}": static_text(name) for name in sorted({*_ASSETS, *styles})}
    found |= {f"assets/{page.name}.js": bundle(page.module, modules(), INSTEAD) for page in pages}
    if any(page.has_charts for page in pages):
        found["assets/plotly.min.js"] = _plotly()
    return found | {page.file: _html(page, home, run) for page in pages}


def filled(name: str, texts: Mapping[str, str]) -> str:
    """The template ``name`` with its places filled in; ``texts`` are HTML."""
    return Template(static_text(name)).substitute(texts).rstrip("\n")


def static_text(name: str) -> str:
    """One of the files that browsers load."""
    return (STATIC / name).read_text("utf-8")


@cache
def modules() -> dict[str, str]:
    """The text of each script by its name."""
    return {file.name: file.read_text("utf-8") for file in STATIC.iterdir() if file.name.endswith(".js")}


def _html(page: FolderPage, home: str, run: str) -> str:
    facts = {"page": page.name, "home": home, "run": run}
    scripts = ["assets/store.js", *(f"data/{name}.js" for name in page.data), f"assets/{page.name}.js"]
    links = [f'<link rel="stylesheet" href="assets/{style}">' for style in ("app.css", *page.styles)]
    if page.has_charts:
        links.append('<meta name="plotly" content="assets/plotly.min.js">')
    texts = {
        "about": " ".join(f'data-{key}="{escape(value)}"' for key, value in facts.items() if value),
        "title": escape(page.title),
        "links": "\n".join(links),
        "scripts": "\n".join(f'<script defer src="{source}"></script>' for source in scripts),
        "body": page.body,
    }
    return filled("shell.html", texts) + "\n"


def _plotly() -> str:
    from plotly.offline import get_plotlyjs  # slow to import, and only pages with charts need it

    return get_plotlyjs()
