"""The page of what sparsity costs, on copies of one run that stand for the coders of a sweep."""

import json
import shutil
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import Page

from unweave.analysis.pareto import SweptCoder, pareto_lines
from unweave.analysis.swept import Chains, frontiers
from unweave.pages.sweep import sweep_json
from unweave.web.app import create_app

from .conftest import ADDRESS, serving

SWEPT = {"seed0-k7": (7.0, 0.5), "seed1-k7": (7.5, 0.6), "seed0-k14": (14.0, 0.8)}
"""L0 and explained variance."""


@pytest.fixture(scope="module")
def app(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    folder = tmp_path_factory.mktemp("swept")
    shutil.copytree(runs / "small", folder / "alone")
    swept = []
    for name, (l0, variance) in SWEPT.items():
        path = folder / "grid" / "coders" / name
        shutil.copytree(runs / "small", path)
        results = json.loads((path / "results.json").read_text())
        results["figures"] |= {"l0": l0, "explained_variance": variance}
        (path / "results.json").write_text(json.dumps(results))
        swept.append(
            SweptCoder(name, "batch_topk", f"k={name.split('k')[1]}", {"l0": l0, "explained_variance": variance})
        )
    (folder / "grid" / "report").mkdir()
    told = sweep_json(swept, frontiers(pareto_lines(swept)), Chains([], [], [], {}, []))
    (folder / "grid" / "report" / "sweep.json").write_text(told)
    return create_app(folder)


@pytest.fixture(scope="module")
def client(app: FastAPI) -> TestClient:
    return TestClient(app, base_url=ADDRESS)


@pytest.fixture(scope="module")
def server(app: FastAPI) -> Iterator[str]:
    with serving(app) as address:
        yield address


def test_a_sweep_is_drawn_over_its_seeds(client: TestClient) -> None:
    page = client.get("/sweeps.json").json()
    assert page["chosen"] == {"kind": "sweep", "name": "grid", "text": "grid", "n_coders": 3}
    [line] = page["lines"]
    assert [(point["setting"], len(point["runs"])) for point in line["points"]] == [("k=7", 2), ("k=14", 1)]
    variance = line["points"][0]["figures"]["explained_variance"]
    assert variance["value"] == pytest.approx(0.55)
    assert variance["error"] == pytest.approx(statistics.stdev([0.5, 0.6]) / 2**0.5)


def test_a_setting_of_one_coder_has_the_error_of_its_measurement(client: TestClient, app: FastAPI) -> None:
    page = client.get("/sweeps.json").json()
    results = json.loads((app.state.library.root / "grid" / "coders" / "seed0-k14" / "results.json").read_text())
    point = page["lines"][0]["points"][1]
    assert point["runs"] == ["grid~coders~seed0-k14"]
    error = point["figures"]["explained_variance"]["error"]
    assert error == results["standard_errors"]["explained_variance"] > 0


def test_all_coders_of_a_site_are_drawn_without_a_sweep(client: TestClient) -> None:
    page = client.get("/sweeps.json", params={"kind": "site"}).json()
    assert page["chosen"]["n_coders"] == 4 and page["chosen"]["text"].startswith("layers.1.resid_post of ")
    [line] = page["lines"]
    assert line["name"] == "batch_topk, 63 latents"
    l0s = [point["figures"]["l0"]["value"] for point in line["points"]]
    assert l0s == sorted(l0s) and len(l0s) == 4
    again = client.get("/sweeps.json", params={"kind": "site", "of": page["chosen"]["name"]}).json()
    assert again["chosen"] == page["chosen"]


def test_what_is_not_there_is_said_with_what_may_be_meant(client: TestClient) -> None:
    answer = client.get("/sweeps.json", params={"kind": "sweep", "of": "grit"})
    assert answer.status_code == 404 and "'grid'" in answer.json()["error"]


def test_a_sweep_whose_page_is_damaged_is_still_a_site(app: FastAPI, client: TestClient) -> None:
    path = app.state.library.root / "grid" / "report" / "sweep.json"
    kept = path.read_text()
    for damage in ("", "[]", '{"coders": [7]}', '{"coders": 7}'):
        path.write_text(damage)
        kinds = [choice["kind"] for choice in client.get("/sweeps.json").json()["choices"]]
        assert kinds == ["site"]
    path.write_text(kept)


def test_a_coder_without_results_says_so(app: FastAPI, client: TestClient) -> None:
    path = app.state.library.root / "alone" / "results.json"
    kept = path.read_text()
    path.write_text("{}")
    page = client.get("/sweeps.json", params={"kind": "site"}).json()
    path.write_text(kept)
    told = {coder["run"]["name"]: coder["why_no_figures"] for coder in page["coders"]}
    assert "damaged" in told.pop("alone") and not any(told.values())
    assert sum(len(point["runs"]) for point in page["lines"][0]["points"]) == 3


@pytest.mark.browser
def test_charts_are_drawn_and_a_point_opens_its_coder(visit: Callable[..., Page]) -> None:
    page = visit("/sweeps", viewport={"width": 1280, "height": 900})
    page.wait_for_selector("[data-name=loss_recovered_mean] .plot.js-plotly-plot")
    points = page.locator("[data-name=explained_variance] .point")
    assert points.count() == 2
    assert page.locator("[data-name=explained_variance] .yerror").count() == 2
    box = points.nth(0).bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector(".coders tr.picked >> nth=1")
    box = points.nth(1).bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_url("**/runs/grid~coders~seed0-k14/evals")


@pytest.mark.browser
def test_coders_are_chosen_sorted_and_reached_by_keys(visit: Callable[..., Page]) -> None:
    page = visit("/sweeps", viewport={"width": 390, "height": 800}, color_scheme="dark")
    page.get_by_label("Coders").select_option(index=1)
    page.wait_for_url("**kind=site**")
    page.wait_for_selector(".coders tbody tr >> nth=3")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.goto(page.url + "&sort=explained_variance&descending=true")
    page.wait_for_selector(".coders tbody tr >> nth=3")
    first = page.locator(".coders tbody tr").first
    assert first.locator("a.coder").inner_text() == "grid/coders/seed0-k14"
    assert first.locator("td[data-label='Explained variance']").inner_text().startswith("0.800 ± ")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.className") == "coder"
