"""The page of a sweep in a browser: every chart is drawn, names are text, and latents lead to the coders' reports."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest
from playwright.sync_api import Page

from tests.conftest import CHROMIUM
from unweave.analysis.families import Branch
from unweave.analysis.pareto import SweptCoder
from unweave.analysis.scaling import JOINT, ScalingRun
from unweave.analysis.swept import Chains, FamilyChain, FittedLaw, LawPoint, Track, TrackChain
from unweave.formats.files import write_texts
from unweave.metrics import definitions
from unweave.pages.sweep import COLUMNS, sweep_files

from .conftest import HOSTILE

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH; apt-get install chromium"),
]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two lines of coders with two seeds, a law, a family and a track."""
    folder = tmp_path_factory.mktemp("sweeps") / "report"
    coders = [
        SweptCoder(f"{line}-{k}-{seed}", line, f"k={k}", dict.fromkeys(COLUMNS, 0.1 * k / (1 + seed)) | {"l0": k})
        for line in ("topk", HOSTILE)
        for k in (7, 21, 63)
        for seed in (0, 1)
    ]
    point = LawPoint("k=7", ScalingRun(0.5, 63, 7.0))
    law = FittedLaw("topk", JOINT, {}, {"scaling_error": 0.01}, [point], {"k=7": ([63.0, 126.0], [0.5, 0.4])})
    branch = Branch(0, 3, 1.0, [Branch(1, 12, 0.9, [])])
    family = FamilyChain("topk", ["narrow", "a b"], [63, 126], [{"same_number_share": 0.0}], [branch])
    track = TrackChain(
        HOSTILE,
        ["narrow", "a b"],
        ["layers.1", "layers.2"],
        {"same_number_share": 0.0},
        [1.0, 0.5],
        [Track([3, 5], [1.0, 0.8])],
    )
    chains = Chains([law], [family], [track], {"a b": {12: HOSTILE, 5: " the"}}, [HOSTILE])
    write_texts(folder, sweep_files(HOSTILE, {"Model": HOSTILE}, coders, chains, definitions()).items())
    return folder


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_chart_is_drawn(look: Callable[..., Page], sweep: Path, width: int, scheme: str) -> None:
    page = look("index.html", sweep, viewport={"width": width, "height": 800}, color_scheme=scheme)
    charts = page.locator(".plot.js-plotly-plot")
    for place in (
        "#charts [data-name=explained_variance]",
        "#charts [data-name=loss_recovered_mean]",
        "#law-0",
        "#tracks",
    ):
        page.locator(f"{place} .plot.js-plotly-plot").wait_for()
    assert charts.count() == 4
    first = page.locator("#charts [data-name=explained_variance]")
    assert first.locator(".scatterlayer .point").count() == 6, "three settings of each of two lines"
    assert first.locator(".yerror").count() == 6
    assert HOSTILE in first.locator(".legendtext").all_text_contents()
    assert page.locator("img").count() == 1, "the icon"
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_latents_lead_to_the_reports_of_their_coders(look: Callable[..., Page], sweep: Path) -> None:
    page = look("index.html", sweep)
    links = page.locator(".families a, #main td a").evaluate_all("all => all.map((link) => link.getAttribute('href'))")
    assert list(map(unquote, links)) == [f"../coders/a b/report/latent.html?latent={latent}" for latent in (12, 5)]


def test_the_page_gets_the_colours_of_a_chosen_theme(look: Callable[..., Page], sweep: Path) -> None:
    page = look("index.html", sweep, color_scheme="light")
    page.locator("#tracks .plot.js-plotly-plot").wait_for()
    ink = "document.querySelector('#tracks .xtick text').style.fill"
    light = page.evaluate(ink)
    page.get_by_role("button", name="Theme").click()
    page.get_by_role("button", name="Theme: light").click()
    page.wait_for_function(f"light => {ink} !== light", arg=light)
