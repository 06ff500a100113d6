"""Exported pages: opened from a folder with no network they show what the app shows."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.web.conftest import HOSTILE, QUIET, serving
from unweave.formats.saedashboard import Batch, Prompts, batch_json, feature_of
from unweave.latent_record import Example, ExampleGroup, LatentRecord, TokenWeight
from unweave.pages.latent_data import row_of
from unweave.pipelines.export import export
from unweave.pipelines.export_sources import ExportConfig
from unweave.storage.latent_table import TableQuery
from unweave.storage.notes import Notes
from unweave.storage.run_folder import Run
from unweave.web.app import create_app

QUERIES = [
    "",
    "sort=density&descending=true",
    "search=th",
    "search=%28",
    "search=12",
    "search=LOOM",
    "range=density:0.02:&range=n_fires:3:&sort=max",
    "range=n_fires::0",
    "list=odd&sort=mean&offset=2&limit=3",
    "labelled=true",
]
_GO = """query => {
  history.pushState(null, "", `${location.pathname}?${query}`);
  window.dispatchEvent(new Event("unweave-state"));
}"""


@pytest.fixture(scope="module")
def noted(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with labels and a list, in a folder of its own."""
    folder = tmp_path_factory.mktemp("noted")
    shutil.copytree(runs / "small", folder / "small", ignore=shutil.ignore_patterns("notes.sqlite*"))
    notes = Notes(folder / "small" / "notes.sqlite")
    notes.write(5, label="Looms", note=HOSTILE)
    for latent in (1, 3, 5, 7, 9, 11):
        notes.add("odd", latent)
    return folder / "small"


@pytest.fixture(scope="module")
def app_page(noted: Path, browser: Browser) -> Iterator[Callable[[str], Page]]:
    """Opens a page of the app on the same run."""
    context = browser.new_context()
    with serving(create_app(noted.parent)) as address:

        def open_page(path: str) -> Page:
            page = context.new_page()
            page.goto(address + path)
            page.wait_for_selector("body[data-drawn]")
            return page

        yield open_page
        context.close()


@pytest.fixture(scope="module")
def exported(noted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of one name, and dashboards with hostile tokens."""
    folder = tmp_path_factory.mktemp("exported")
    dashboards = folder / "dashboards"
    dashboards.mkdir()
    texts = [HOSTILE, " the", "\n"]
    example = Example([1, 0, 2], [0.0, 3.0, 1.0], 1, "")
    record = LatentRecord(
        4, 0.5, 2, 3.0, 2.0, [example], [TokenWeight(0, 1.0)], [], [ExampleGroup(1.0, 3.0, 1.0, [example])]
    )
    feature = feature_of(record, texts, Prompts(dataset=HOSTILE, n_prompts=2, n_tokens=3))
    batch = Batch(model_id=HOSTILE, layer=2, sae_set="hostile set", features=[feature])
    (dashboards / "batch-0.json").write_bytes(batch_json(batch))
    shutil.copytree(noted, folder / "more" / "small")
    paths = [noted, folder / "more" / "small", dashboards]
    return export(paths, "html", folder / "pages", QUIET, ExportConfig())


@pytest.fixture
def look(browser: Browser, exported: Path) -> Iterator[Callable[..., Page]]:
    """Opens a file with the network off; at the end no page has complained or asked for anything beyond the folder."""
    context = browser.new_context(offline=True)
    said: list[str] = []
    asked: list[str] = []

    def look(name: str, query: str = "") -> Page:
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((exported / name).as_uri() + (f"?{query}" if query else ""))
        page.wait_for_selector("body[data-drawn]")
        return page

    yield look
    context.close()
    assert said == []
    assert {re.sub(r"[^/]*$", "", address) for address in asked} <= {
        f"{exported.as_uri()}/{part}" for part in ("", "assets/", "data/", "data/small/", "data/2-hostile-set/")
    }


def test_a_row_made_of_a_record_is_that_of_the_index(runs: Path) -> None:
    index = Run(runs / "small").latents
    rows, _ = index.rows(TableQuery(limit=1000))
    assert [row_of(record, index.vocabulary()) for record in index] == rows


def test_each_run_has_a_folder_of_its_own(exported: Path) -> None:
    assert {path.name for path in (exported / "data").iterdir()} == {"small", "small-2", "2-hostile-set", "runs.js"}
    assert json.loads((exported / "export.json").read_text())["n_latents"] == [63, 63, 1]
    runs = (exported / "data" / "runs.js").read_text()
    assert "</script" not in runs and str(exported.parent) not in runs


def test_pages_may_run_scripts_of_their_folder_only(exported: Path) -> None:
    for name in ("index.html", "latents.html", "latent.html"):
        head, _, rest = (exported / name).read_text().partition("<script")
        assert "content=\"default-src 'none'; script-src 'self' file:; " in head
        assert not re.search(r"<script(?![^>]*\bsrc=)", "<script" + rest)


@pytest.mark.browser
def test_the_first_page_leads_to_a_latent(look: Callable[..., Page]) -> None:
    page = look("index.html")
    assert page.locator("a.run-name").all_inner_texts() == ["small", "small", "2-hostile set"]
    page.locator("a.run-name").first.click()
    page.locator("a.latent").nth(3).click()
    page.wait_for_selector("h1.latent-name")
    assert page.locator("h1").inner_text().startswith("Latent 3")
    page.keyboard.press("n")
    page.wait_for_function("document.title.startsWith('Latent 4 ')")
    page.get_by_role("button", name="±5").click()
    page.wait_for_function("document.querySelector('[aria-pressed=true]').textContent === '±5'")
    assert (
        max(page.locator(".strip").evaluate_all("all => all.map(one => one.querySelectorAll('.token').length)")) <= 11
    )
    page.go_back()
    page.wait_for_function("document.title.startsWith('Latent 3 ')")
    page.keyboard.press("u")
    page.wait_for_selector("table.latents")


@pytest.mark.browser
def test_the_table_is_the_one_of_the_app(look: Callable[..., Page], app_page: Callable[[str], Page]) -> None:
    here, there = look("latents.html", "run=small"), app_page("/runs/small")

    def table(page: Page, query: str) -> list[str]:
        drawn = int(page.locator("body").get_attribute("data-drawn") or 0)
        page.evaluate(_GO, query)
        page.wait_for_function("n => Number(document.body.dataset.drawn) > n", arg=drawn)
        return page.locator(
            "output[aria-live], table.latents tbody tr, .brush .ticks span, .brush .note"
        ).all_inner_texts()

    for query in QUERIES:
        assert table(here, f"run=small&{query}") == table(there, query), query


@pytest.mark.browser
@pytest.mark.parametrize("latent", [5, 40])
def test_a_latent_is_shown_as_in_the_app(
    look: Callable[..., Page], app_page: Callable[[str], Page], latent: int
) -> None:
    here, there = look("latent.html", f"run=small&latent={latent}"), app_page(f"/runs/small/latents/{latent}")
    for part in ("h1", "dl.numbers", ".column > section:last-child", ".side .panel:not(.notes)"):
        assert here.locator(part).all_inner_texts() == there.locator(part).all_inner_texts()
    heats = "all => all.map(one => one.style.getPropertyValue('--heat'))"
    assert here.locator(".token").evaluate_all(heats) == there.locator(".token").evaluate_all(heats)


@pytest.mark.browser
def test_what_people_wrote_goes_with_it_and_cannot_be_changed(look: Callable[..., Page]) -> None:
    notes = look("latent.html", "run=small&latent=5").locator(".notes")
    assert notes.locator("h2").inner_text() == "Looms" and notes.locator(".chip").all_inner_texts() == ["odd"]
    assert notes.locator("p").text_content() == HOSTILE and notes.locator("img, input, button").count() == 0


@pytest.mark.browser
def test_hostile_tokens_are_text(look: Callable[..., Page]) -> None:
    page = look("latent.html", "run=2-hostile-set&latent=4")
    assert page.locator(".token.peak").first.get_attribute("data-text") == HOSTILE
    assert "<img" in page.locator(".token.peak").first.inner_text()
    assert page.locator("main img").count() == 0
    table = look("latents.html", "run=2-hostile-set")
    assert table.locator("main img").count() == 0 and table.locator("tbody tr").count() == 1


@pytest.mark.browser
def test_an_address_that_leads_nowhere_says_so(look: Callable[..., Page]) -> None:
    wrong = {
        ("latent.html", "run=small&latent=63"): "latent 63 is not in this folder",
        ("latent.html", "run=small"): "is not in this folder",
        ("latents.html", "run=%3Cimg%3E"): 'there is no run "<img>"',
        ("latents.html", "run=small&sort=peaks"): 'unknown column "peaks"',
    }
    for (name, query), said in wrong.items():
        assert said in look(name, query).get_by_role("alert").inner_text()
