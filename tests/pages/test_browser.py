"""The pages of a report as a browser shows them from disk: all is drawn, and nothing is asked of a network."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Page

from tests.conftest import CHROMIUM

from .conftest import HOSTILE, VOCABULARY

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--log-level=0",
    "--virtual-time-budget=10000",
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH; apt-get install chromium"),
]


class Visit(NamedTuple):
    """What came of opening a page."""

    dom: str
    console: list[str]
    requests: list[str]


def visit(page: Path, profile: Path, query: str = "") -> Visit:
    """Open a page without any network, and keep what it drew, said and asked for. ``profile``: the browser's own."""
    log = profile.with_suffix(".json")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", f"--log-net-log={log}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", page.as_uri() + query]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    console = [line for line in done.stderr.decode(errors="replace").splitlines() if ":CONSOLE" in line]
    events = json.loads(log.read_text(encoding="utf-8"))["events"]
    asked = [event.get("params", {}) for event in events]
    # The browser's own requests have "not an origin"; those of a page from disk have the origin "null".
    requests = [p["url"] for p in asked if p.get("initiator", "not an origin") != "not an origin"]
    return Visit(done.stdout.decode(), console, requests)


def test_the_first_page_draws_its_charts(report: Path, tmp_path: Path) -> None:
    dom, console, requests = visit(report / "index.html", tmp_path / "profile")
    assert console == [] and requests == []
    panels = re.findall(r'class="card chart curve" data-name="(\w+)"', dom)
    assert panels == ["mse", "aux", "explained_variance", "l0", "dead_share", "lr"]
    assert len(re.findall(r'class="plot js-plotly-plot"', dom)) == len(panels) + 1
    assert len(re.findall(r'<article class="card">', dom)) == 6
    assert "<img src=x" not in dom


@pytest.mark.parametrize("address", ["latents.html", "latent.html?run=run-x&latent=300"])
def test_pages_of_latents_ask_no_network(report: Path, tmp_path: Path, address: str) -> None:
    name, _, query = address.partition("?")
    _, console, requests = visit(report / name, tmp_path / "profile", f"?{query}")
    assert console == [] and requests == []


def test_the_header_leads_from_the_report_to_its_latents_and_back(look: Callable[..., Page]) -> None:
    page = look("index.html")
    links = page.locator("header nav a")
    assert links.all_inner_texts() == ["Report", "Latents"]
    assert page.locator("header nav a[aria-current=page]").all_inner_texts() == ["Report"]
    links.nth(1).click()
    page.wait_for_selector("table.latents")
    assert page.locator("header nav a[aria-current=page]").all_inner_texts() == ["Latents"]
    page.locator("a.latent").nth(1).click()
    page.wait_for_selector("h1.latent-name")
    page.get_by_role("link", name="Report").click()
    page.wait_for_selector(".findings")


def test_a_featured_card_leads_to_its_latent(look: Callable[..., Page]) -> None:
    page = look("index.html")
    link = page.locator(".cards h3 a").first
    title = link.inner_text()
    link.click()
    page.wait_for_selector("h1.latent-name")
    assert page.locator("h1").inner_text().startswith(title)


def test_a_latent_is_shown_with_its_examples_and_numbers(look: Callable[..., Page]) -> None:
    page = look("latent.html?run=run-x&latent=300")
    assert page.locator("h1").inner_text().startswith("Latent 300")
    assert page.locator(".token.fires.peak").count() == 5
    assert page.locator(".strip .glyph", has_text="↵").count() >= 5
    assert page.locator("dl.numbers dd strong").first.inner_text() == "9 %"
    assert page.locator(".source").first.inner_text() == f"document 0 {HOSTILE}"
    promoted = page.locator(".weights.up .chip").evaluate_all("all => all.map((chip) => JSON.parse(chip.title))")
    assert promoted == [VOCABULARY[(300 + i) % len(VOCABULARY)] for i in range(7)]
    assert page.locator("main img").count() == 0


def test_the_token_under_the_pointer_or_the_focus_tells_its_numbers(look: Callable[..., Page]) -> None:
    page = look("latent.html?latent=300")
    strip = page.locator(".strip").first
    strip.locator(".token").nth(1).hover()
    assert page.locator(".tooltip code").inner_text() == json.dumps(HOSTILE)
    assert page.locator(".tooltip strong").inner_text() == "0.250"
    strip.locator(".token.peak").focus()
    assert page.locator(".tooltip strong").inner_text() == "302"
    page.keyboard.press("ArrowRight")
    assert page.locator(".tooltip strong").inner_text() == "does not fire"
    page.keyboard.press("Escape")
    assert page.locator(".tooltip").is_hidden()


def test_a_dead_latent_says_so(look: Callable[..., Page]) -> None:
    page = look("latent.html?latent=7")
    assert page.locator("h1 .flag").inner_text() == "dead"
    assert "of 100,000 tokens" in page.locator("dl.numbers").inner_text()
    assert page.locator(".example-controls").count() == 0


def test_a_mean_that_is_no_number_is_a_dash(look: Callable[..., Page]) -> None:
    assert look("latent.html?latent=8").locator("dl.numbers dd strong").all_inner_texts()[3] == "–"
    page = look("latents.html?search=8")
    row = page.locator("tbody tr").filter(has=page.locator("a.latent", has_text=re.compile("^8$")))
    assert row.locator("td[data-label=Mean]").inner_text() == "–"


def test_the_address_carries_search_filter_and_order(look: Callable[..., Page]) -> None:
    page = look("latents.html?search=wordaa&sort=density&descending=true&range=n_fires:1:")
    shown = [int(number) for number in page.locator("a.latent").all_inner_texts()]
    assert shown[:6] == [572, 571, 570, 569, 568, 460], "those that promote the word or peak on it, the densest first"
    assert page.get_by_role("searchbox").input_value() == "wordaa"
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("Density")


def test_a_page_of_the_table_holds_some_of_the_latents(look: Callable[..., Page]) -> None:
    page = look("latents.html")
    assert page.locator("output[aria-live]").inner_text() == "613 latents"
    assert page.locator("tbody tr").count() == 100
    page.keyboard.press("n")
    page.wait_for_function("document.querySelector('a.latent').textContent === '100'")
    page.get_by_role("button", name="Dead").click()
    page.wait_for_function("document.querySelector('output[aria-live]').textContent === '88 latents of 613'")


def test_keys_search_and_move(look: Callable[..., Page]) -> None:
    page = look("latents.html")
    page.keyboard.press("/")
    page.keyboard.type("300")
    page.wait_for_url("**search=300")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1.latent-name")
    page.keyboard.press("p")
    page.wait_for_function("document.title.startsWith('Latent 299 ')")
    page.keyboard.press("?")
    assert page.get_by_role("dialog").locator("dt").count() >= 6


def test_the_theme_of_the_first_page_is_that_of_the_others(look: Callable[..., Page]) -> None:
    page = look("index.html")
    page.wait_for_selector("#density-plot .js-plotly-plot")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Theme").click()
    page.get_by_role("button", name="Theme: light").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.locator("header nav a").nth(1).click()
    page.wait_for_selector("table.latents")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


@pytest.mark.parametrize("address", ["index.html", "latents.html", "latent.html?latent=300"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(look: Callable[..., Page], address: str, scheme: str) -> None:
    page = look(address, viewport={"width": 390, "height": 800}, color_scheme=scheme)
    if address == "index.html":
        page.wait_for_selector("#density-plot .js-plotly-plot")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_page_that_calls_out_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "canary.html"
    page.write_text('<img src="http://example.test/x.png"><script>console.error("canary")</script>', encoding="utf-8")
    _, console, requests = visit(page, tmp_path / "profile")
    assert requests == ["http://example.test/x.png"]
    assert "canary" in console[0]
