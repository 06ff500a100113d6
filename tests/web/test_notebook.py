"""Latents that show themselves at the end of a cell: their text, their frame in a browser, and a real notebook."""

import importlib.util
import re
from html import unescape
from pathlib import Path

import pytest
from playwright.sync_api import Browser

import unweave
from tests.web.conftest import HOSTILE
from unweave.errors import UserError
from unweave.latent_record import Example, LatentRecord, TokenWeight
from unweave.web.latent import Other
from unweave.web.notebook import LatentView

HAS_NOTEBOOKS = all(importlib.util.find_spec(name) for name in ("nbclient", "ipykernel"))


@pytest.fixture
def hostile() -> LatentView:
    texts = {0: HOSTILE, 1: "\n", 2: " the", 3: "]]>--></style>"}
    examples = [Example([2, 0, 1, 3], [0.0, 4.0, 0.0, 1.0], 1, HOSTILE)]
    record = LatentRecord(7, 0.25, 25, 4.0, 2.0, examples, [TokenWeight(0, 1.0)], [TokenWeight(3, -1.0)])
    return LatentView(record, texts, {3: Other(HOSTILE, [HOSTILE])}, 100)


def test_the_text_of_a_latent_says_what_it_does(hostile: LatentView) -> None:
    first, peaks, example = repr(hostile).splitlines()
    assert first == "Latent 7 fires on 25.000% of 100 tokens, at most 4."
    assert peaks.startswith("Peaks on '</script>")
    assert example.startswith("       4   the«</script>") and example.endswith("»\\n]]>--></style>")
    assert all(sign.isprintable() for line in (first, peaks, example) for sign in line), (
        "nothing for a terminal to obey"
    )


def test_the_text_of_a_dead_latent_says_so() -> None:
    view = LatentView(LatentRecord(3, 0.0, 0, 0.0, 0.0, [], [], []), {}, {}, 1234)
    assert repr(view) == "Latent 3 never fires on 1,234 tokens."
    assert "<iframe" in view._repr_html_()


def test_the_table_says_how_many_fit(runs: Path) -> None:
    view = unweave.show_latents(runs / "small", sort="density", descending=True, limit=5)
    *lines, last = repr(view).splitlines()
    assert len(lines) == 1 + 5 and last == "5 of 63 latents"
    densities = [row.density for row in view.rows]
    assert densities == sorted(densities, reverse=True)
    assert set(view._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_a_latent_that_is_not_there_is_refused(runs: Path) -> None:
    with pytest.raises(UserError, match="no latent 63"):
        unweave.show_latent(runs / "small", 63)
    with pytest.raises(UserError, match="no latent index"):
        unweave.show_latent(runs / "sub" / "bare", 0)


def test_no_text_leaves_the_frame(hostile: LatentView) -> None:
    html = hostile._repr_html_()
    (frame,) = re.findall(r"<iframe ([^<>]*)></iframe>", html)
    assert f"<iframe {frame}></iframe>" == html and 'sandbox="allow-scripts"' in frame
    inner = unescape(re.findall(r'srcdoc="([^"]*)"', frame)[0])
    assert inner.count("</script>") == 2 and "<img" not in inner and "https:" not in inner


@pytest.mark.browser
def test_a_browser_draws_the_frame_and_asks_for_nothing(
    hostile: LatentView, runs: Path, browser: Browser, tmp_path: Path
) -> None:
    views = [hostile, unweave.show_latents(runs / "small", limit=7)]
    page_file = tmp_path / "notebook.html"
    page_file.write_text("<!doctype html><meta charset='utf-8'>" + "".join(view._repr_html_() for view in views))
    page = browser.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    latent, table = (page.frame_locator("iframe").nth(i) for i in (0, 1))
    assert latent.locator("h1").inner_text().startswith("Latent 7")
    assert latent.locator(".token.peak").first.get_attribute("data-text") == HOSTILE
    assert latent.locator("img").count() == 0
    assert table.locator("tbody tr").count() == 7
    page.close()
    assert said == [] and asked == [page_file.as_uri()]


@pytest.mark.skipif(not HAS_NOTEBOOKS, reason="no nbclient and ipykernel here")
def test_a_real_notebook_holds_the_frame(runs: Path) -> None:
    import nbclient
    import nbformat

    cells = ["import unweave", f"run = unweave.Run({str(runs / 'small')!r})", "unweave.show_latent(run, 3)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=120).execute()
    (output,) = notebook.cells[-1].outputs
    assert output.data["text/plain"].startswith("Latent 3 ")
    assert output.data["text/html"].startswith("<iframe sandbox=")
