"""The page of what was measured, against results.json and suites.json themselves."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Page

from unweave.storage.results import SuiteFigures, read_results, write_suites
from unweave.web.app import create_app

from .conftest import ADDRESS


def figures_of(groups: list[dict]) -> dict[str, dict]:
    return {one["name"]: one for group in groups for one in group["figures"]}


def test_every_figure_is_there_with_its_error_basis_and_floors(client: TestClient, runs: Path) -> None:
    results = read_results(runs / "small")
    measured = client.get("/runs/small/evals.json").json()["measured"]
    found = figures_of(measured["groups"])
    assert set(found) == set(results.figures)
    for name, value in results.figures.items():
        own = found[name]["own"]
        assert own["value"] == value
        assert own["error"] == results.standard_errors.get(name)
        assert found[name]["n_tokens"] == results.basis[name].n_tokens
        assert found[name]["meaning"]
    assert set(measured["floors"]) == set(results.floors) == {"random", "pca", "identity"}
    floor = found["explained_variance"]["floors"]["pca"]
    assert floor["value"] == results.floors["pca"].figures["explained_variance"]
    assert measured["tokens_by_l0"] == results.distributions.tokens_by_l0
    assert measured["seeds"] == results.seeds and measured["measured_with"] == results.measured_with


def test_an_axis_holds_all_of_its_marks(client: TestClient) -> None:
    for one in figures_of(client.get("/runs/small/evals.json").json()["measured"]["groups"]).values():
        assert one["low"] < one["high"]
        for mark in (one["own"], *one["floors"].values()):
            if mark["value"] is not None:
                error = mark["error"] or 0.0
                assert one["low"] <= mark["value"] - error and mark["value"] + error <= one["high"]


def test_suites_stand_beside_their_floors(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "small", tmp_path / "small")
    own = SuiteFigures(figures={"rank": 7.0, "hollow": math.nan}, standard_errors={"rank": 0.5}, n=63, details={})
    floor = SuiteFigures(figures={"rank": 3.0}, standard_errors={}, n=63, details={})
    figures = {"small": own, "random": floor}
    write_suites(tmp_path / "small", {"geometry": figures, "of_old": figures})
    client = TestClient(create_app(tmp_path), base_url=ADDRESS)
    groups = client.get("/runs/small/evals.json").json()["measured"]["suites"]
    assert [group["title"] for group in groups] == ["geometry", "of old"], "also one that this version does not know"
    rank = groups[0]["figures"][0]
    assert rank["own"] == {"value": 7, "error": 0.5} and rank["floors"] == {"random": {"value": 3, "error": None}}
    assert rank["n_tokens"] == 63 and rank["n_documents"] is None
    assert groups[0]["figures"][1]["own"]["value"] is None


def test_a_run_without_an_index_has_this_page(client: TestClient) -> None:
    assert client.get("/runs/sub~bare/evals.json").status_code == 200


def test_a_run_without_results_says_what_to_run(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "small", tmp_path / "small")
    (tmp_path / "small" / "results.json").unlink()
    answer = TestClient(create_app(tmp_path), base_url=ADDRESS).get("/runs/small/evals.json")
    assert answer.status_code == 400 and "`unweave evaluate`" in answer.json()["error"]


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_marks_lie_where_their_values_are(
    visit: Callable[..., Page], client: TestClient, width: int, scheme: str
) -> None:
    found = figures_of(client.get("/runs/small/evals.json").json()["measured"]["groups"])
    page = visit("/runs/small/evals", viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.locator(".measured li").count() == len(found)
    one = found["explained_variance"]
    axis = page.locator("[data-name=explained_variance] .axis").bounding_box()
    for name, mark in (("own", one["own"]), *one["floors"].items()):
        dot = page.locator(f"[data-name=explained_variance] .dot.{name}").bounding_box()
        assert axis is not None and dot is not None
        at = axis["x"] + axis["width"] * (mark["value"] - one["low"]) / (one["high"] - one["low"])
        assert dot["x"] + dot["width"] / 2 == pytest.approx(at, abs=1.5)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.browser
def test_a_search_leaves_fitting_figures_and_keys_move_through_them(visit: Callable[..., Page]) -> None:
    page = visit("/runs/small/evals")
    page.keyboard.press("/")
    page.keyboard.type("kurtosis")
    page.wait_for_url("**search=kurtosis")
    page.wait_for_selector("[data-name=explained_variance]", state="hidden")
    shown = page.locator(".measured li:visible").evaluate_all("rows => rows.map((row) => row.dataset.name)")
    assert shown == ["kurtosis_of_neurons", "kurtosis_of_rows", "kurtosis_of_codes"]
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.dataset.name") == "kurtosis_of_rows"
    assert page.locator("[data-name=kurtosis_of_rows] .about").is_visible()
