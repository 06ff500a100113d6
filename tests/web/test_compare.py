"""The page of two coders, where the second is the first with its latents shuffled and a few of them made anew."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import Page

from unweave.formats.native import write_coder
from unweave.pipelines.compare import compare
from unweave.storage.index_folder import LatentIndex
from unweave.storage.measured import read_sums, write_sums
from unweave.storage.run_folder import Run
from unweave.web.app import create_app

from .conftest import ADDRESS, serving

NEW = 7
"""Latents of the second coder that are in the first one no longer."""


@pytest.fixture(scope="module")
def order() -> torch.Tensor:
    return torch.randperm(63, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def app(runs: Path, order: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """``first``, and ``second`` whose L0 differs by 1 on every token, and whose index is of another coder."""
    folder = tmp_path_factory.mktemp("pair")
    for name in ("first", "second"):
        shutil.copytree(runs / "small", folder / name, ignore=shutil.ignore_patterns("notes.sqlite*", "map"))
    coder = Run(folder / "second").coder
    state = {
        name: tensor[order] if tensor.shape[:1] == (63,) else tensor for name, tensor in coder.state_dict().items()
    }
    state["W_dec"][:NEW] = torch.randn(NEW, coder.W_dec.shape[1], generator=torch.Generator().manual_seed(7))
    coder.load_state_dict(state)
    write_coder(folder / "second" / "coder", coder)
    sums = read_sums(folder / "second")
    sums["l0"]["total"] += sums["l0"]["rows_by_count"].sum(1)
    write_sums(folder / "second", sums)
    return create_app(folder)


@pytest.fixture(scope="module")
def client(app: FastAPI) -> TestClient:
    return TestClient(app, base_url=ADDRESS)


@pytest.fixture(scope="module")
def server(app: FastAPI) -> Iterator[str]:
    with serving(app) as address:
        yield address


@pytest.fixture(scope="module")
def folder(app: FastAPI) -> Path:
    return app.state.library.root


def asked(client: TestClient, **query: str | int) -> dict:
    answer = client.get("/compare.json", params={"a": "first", "b": "second", **query})
    assert answer.status_code == 200, answer.text
    assert answer.json()["going"] == ""
    return answer.json()


def test_latents_are_matched_with_where_they_were_moved(client: TestClient, order: torch.Tensor) -> None:
    latents = asked(client, limit=1000)["latents"]
    assert latents["found"] == latents["n_matched"] == 63
    alike = [row for row in latents["rows"] if row["cosine"] > 0.999]
    assert len(alike) == 63 - NEW
    assert all(order[row["b"]["latent"]] == row["a"]["latent"] for row in alike)
    cosines = [abs(row["cosine"]) for row in latents["rows"]]
    assert cosines == sorted(cosines, reverse=True)


def test_latents_without_a_counterpart_are_those_that_were_made_anew(client: TestClient, order: torch.Tensor) -> None:
    only_b = asked(client, view="only_b", under="0.99", sort="latent_b", descending="false", limit=5)["latents"]
    assert only_b["n_only_b"] == only_b["found"] == NEW
    assert [row["b"]["latent"] for row in only_b["rows"]] == [0, 1, 2, 3, 4]
    only_a = asked(client, view="only_a", under="0.99", limit=5, offset=5)["latents"]
    assert only_a["found"] >= NEW - 2 and len(only_a["rows"]) == only_a["found"] - 5
    assert {row["a"]["latent"] for row in only_a["rows"]} <= set(order[:NEW].tolist())


def test_best_cosines_are_counted_beside_chance(client: TestClient) -> None:
    cosines = asked(client)["latents"]["cosines"]
    assert sum(cosines["counts"]) == sum(cosines["by_chance"]) == 63
    assert cosines["counts"][-1] == 63 - NEW and cosines["by_chance"][-1] == 0


def test_tokens_and_densities_are_those_of_the_index(client: TestClient, folder: Path) -> None:
    index = LatentIndex(folder / "first" / "index")
    rows = asked(client, sort="density_a", limit=10)["latents"]["rows"]
    densities = sorted((record.density for record in index), reverse=True)
    assert [row["a"]["density"] for row in rows] == densities[:10]
    assert all(row["a"]["peaks"] for row in rows)
    assert all(row["b"]["density"] is None and row["b"]["peaks"] == [] for row in rows), "its index is of another coder"


def test_figures_have_the_intervals_of_the_paired_bootstrap(client: TestClient, folder: Path) -> None:
    page = asked(client)
    found = {one["name"]: one for one in page["figures"]}
    expected = {one.name: one for one in compare(folder / "first", folder / "second")}
    assert page["why_no_intervals"] == ""
    assert found["l0"]["is_real"] and found["l0"]["low"] == pytest.approx(1) and found["l0"]["high"] == pytest.approx(1)
    assert not found["explained_variance"]["is_real"]
    assert found["l0_spread"]["low"] == pytest.approx(expected["l0_spread"].low) and found["kl"]["low"] is None
    assert found["l0"]["a_error"] == Run(folder / "first").results["standard_errors"]["l0"]


def test_runs_that_were_measured_on_other_texts_have_no_intervals(client: TestClient, folder: Path) -> None:
    path = folder / "second" / "results.json"
    kept = path.read_text()
    path.write_text(kept.replace("weaver.txt", "other.txt"))
    page = asked(client)
    path.write_text(kept)
    assert "other.txt" in page["why_no_intervals"] and "evaluate both on one" in page["why_no_intervals"]
    assert page["figures"] and all(one["low"] is None for one in page["figures"])


def test_a_coder_that_cannot_be_read_has_figures_and_no_latents(client: TestClient, folder: Path) -> None:
    path = folder / "second" / "coder" / "weights.safetensors"
    kept = path.read_bytes()
    path.write_bytes(kept[:100])
    page = asked(client)
    path.write_bytes(kept)
    assert page["latents"] is None and "weights" in page["why_no_latents"]
    assert "\n" not in page["why_no_latents"] and len(page["figures"]) > 20


def test_a_page_without_two_runs_offers_all(client: TestClient) -> None:
    page = client.get("/compare.json").json()
    assert [run["name"] for run in page["runs"]] == ["first", "second"] and page["a"] is None
    answer = client.get("/compare.json", params={"a": "frist", "b": "second"})
    assert answer.status_code == 404 and "first" in answer.json()["error"]


@pytest.mark.browser
def test_two_runs_are_chosen_compared_and_swapped(visit: Callable[..., Page]) -> None:
    page = visit("/compare")
    page.get_by_label("A", exact=True).select_option("first")
    page.get_by_label("B", exact=True).select_option("second")
    page.wait_for_selector(".pairs tbody tr >> nth=49")
    assert page.locator(".compared .real th").all_inner_texts() == ["L0"]
    page.get_by_role("button", name="Only in B · 7").or_(page.get_by_role("button", name="Only in B")).click()
    page.wait_for_url("**view=only_b*")
    page.wait_for_selector(f".pairs tbody tr >> nth={NEW}", state="detached")
    page.keyboard.press("j")
    link = page.evaluate("document.activeElement.getAttribute('href')")
    assert link.startswith("/runs/first/latents/"), "of the run whose index is there"
    page.keyboard.press("s")
    page.wait_for_url("**a=second&b=first**")
    page.go_back()
    page.wait_for_url("**a=first&b=second**")


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window(visit: Callable[..., Page], width: int) -> None:
    page = visit("/compare?a=first&b=second&all=true", viewport={"width": width, "height": 800}, color_scheme="dark")
    page.wait_for_selector(".pairs")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".compared tbody tr").count() > 30
