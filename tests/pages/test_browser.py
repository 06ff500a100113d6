"""Both pages as a browser shows them from disk: everything is drawn, nothing is asked of a network."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
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
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH; apt-get install chromium"),
]


class Visit(NamedTuple):
    """What came of opening a page."""

    dom: str
    console: list[str]
    requests: list[str]


@pytest.fixture
def report(files: dict[str, str], tmp_path: Path) -> Path:
    for path, text in files.items():
        (tmp_path / "report" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "report" / path).write_text(text, encoding="utf-8")
    return tmp_path / "report"


def visit(page: Path, fragment: str = "") -> Visit:
    """Open a page without any network, and keep what it drew, said and asked for."""
    assert CHROMIUM is not None
    profile = page.parent / f"profile-{page.stem}-{fragment}"
    log = profile.with_suffix(".json")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", f"--log-net-log={log}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", page.as_uri() + fragment]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    console = [line for line in done.stderr.decode(errors="replace").splitlines() if ":CONSOLE" in line]
    events = json.loads(log.read_text(encoding="utf-8"))["events"]
    asked = [event.get("params", {}) for event in events]
    # The browser's own requests have "not an origin"; those of a page from disk have the origin "null".
    requests = [p["url"] for p in asked if p.get("initiator", "not an origin") != "not an origin"]
    return Visit(done.stdout.decode(), console, requests)


def test_the_first_page_draws_its_charts(report: Path) -> None:
    dom, console, requests = visit(report / "index.html")
    assert console == [] and requests == []
    panels = re.findall(r'class="chart panel" data-name="(\w+)"', dom)
    assert panels == ["mse", "aux", "explained_variance", "l0", "dead_share", "lr"]
    assert len(re.findall(r'class="plot js-plotly-plot"', dom)) == len(panels) + 1
    assert len(re.findall(r'<article class="card">', dom)) == 6
    assert "<img src=x" not in dom


def test_the_browser_shows_the_latent_of_the_address(report: Path) -> None:
    dom, console, requests = visit(report / "latents.html", "#300")
    assert console == [] and requests == []
    assert re.search(r"<h1>Latent 300<", dom)
    assert len(re.findall(r'class="token fires peak"', dom)) == 5
    assert len(re.findall(r'<span class="glyph">↵</span>', dom)) >= 5
    assert "<dt>Density</dt><dd><strong>9 %</strong>" in dom
    assert re.search(r'href="#300"[^>]*aria-current="true"', dom)
    assert len(re.findall(r'<a class="row', dom)) < 60, "only the rows in sight are in the document"
    assert "<img src=x" not in dom


def test_a_dead_latent_says_so(report: Path) -> None:
    dom, console, _ = visit(report / "latents.html", "#7")
    assert console == []
    assert "This latent never fired on the 100,000 measured tokens." in dom


def test_the_address_carries_search_and_order(report: Path) -> None:
    dom, console, _ = visit(report / "latents.html", "#300&q=wordaa&sort=density&dead=show")
    assert console == []
    shown = [int(number) for number in re.findall(r'<span class="number">(\d+)</span><span class="words">', dom)]
    assert shown[:6] == [572, 571, 570, 569, 568, 460], "those that promote the word or peak on it, the densest first"


def test_a_page_that_calls_out_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "canary.html"
    page.write_text('<img src="http://example.test/x.png"><script>console.error("canary")</script>', encoding="utf-8")
    _, console, requests = visit(page)
    assert requests == ["http://example.test/x.png"]
    assert "canary" in console[0]
