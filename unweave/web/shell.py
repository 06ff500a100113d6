"""The HTML of every page: a title and one module, which fetches the page's JSON twin and draws it."""

from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from importlib.resources import files
from string import Template

from fastapi.responses import HTMLResponse

STATIC = files("unweave.web") / "static"
PLOTLY = version("plotly")
"""Part of the address of Plotly's script."""


def page(module: str, title: str, *, styles: Sequence[str] = ()) -> HTMLResponse:
    """The page that ``static/<module>.js`` draws, in the styles of all pages and some of its own."""
    template = Template((STATIC / "shell.html").read_text("utf-8"))
    links = "\n".join(f'<link rel="stylesheet" href="/static/{name}.css">' for name in ("app", *styles))
    text = template.substitute(module=module, title=escape(title), plotly=PLOTLY, styles=links)
    return HTMLResponse(text, headers={"cache-control": "no-cache"})
