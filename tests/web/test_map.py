"""The map of latents, against the directions and the index that it is of."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Page

from unweave.analysis.latent_map import principal_plane
from unweave.storage.index_folder import LatentIndex
from unweave.storage.run_folder import Run
from unweave.web.app import create_app

from .conftest import ADDRESS, HOSTILE

PATIENCE = 300.0
"""Seconds that a projection may take on a machine that is busy with other things."""


def points_of(client: TestClient, run: str = "small", **query: str | int) -> dict:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        answer = client.get(f"/runs/{run}/map/points.json", params=query)
        assert answer.status_code == 200, answer.text
        if not answer.json()["going"]:
            return answer.json()
    raise AssertionError(answer.json()["going"])


def test_points_are_the_principal_plane_of_the_directions(client: TestClient, runs: Path) -> None:
    points = points_of(client)
    plane = principal_plane(Run(runs / "small").coder.W_dec)
    ours = np.array([points["x"], points["y"]]).T
    assert np.abs(ours).max() == 1
    theirs = plane.places_L2.numpy() - ours * np.abs(np.ptp(plane.places_L2.numpy(), 0)).max() / np.ptp(ours, 0).max()
    assert np.ptp(theirs, 0).max() < 1e-4, "but for where the middle is, and one scale for both axes"
    assert points["axes"][0] == f"1st principal axis, {100 * plane.shares[0]:.2g} % of the variance"


def test_points_are_coloured_by_what_the_index_has(client: TestClient, runs: Path) -> None:
    points, index = points_of(client), LatentIndex(runs / "small" / "index")
    assert points["density"] == [record.density for record in index]
    assert points["max"] == [record.max_activation for record in index]
    texts = index.vocabulary()
    assert all(
        peaks[0] == texts[record.examples[0].token_ids[record.examples[0].peak]] or len(record.examples) > 1
        for peaks, record in zip(points["peaks"], index, strict=True)
        if record.n_fires
    )


def test_clusters_part_the_latents(client: TestClient) -> None:
    points = points_of(client, clusters=5)
    sizes = [one["n_latents"] for one in points["clusters"]]
    assert len(sizes) == 5 and sizes == sorted(sizes, reverse=True)
    assert sizes == [points["cluster"].count(i) for i in range(5)]
    for i, cluster in enumerate(points["clusters"]):
        own = {word for latent, peaks in enumerate(points["peaks"]) if points["cluster"][latent] == i for word in peaks}
        assert set(cluster["words"]) <= own
    assert client.get("/runs/small/map.json").json()["n_clusters"] == 3


def test_a_search_marks_what_the_table_finds(client: TestClient) -> None:
    client.put("/runs/small/latents/42/label", json={"label": "Kettfäden"})
    word = points_of(client)["peaks"][5][0].strip() or "e"
    for search in (word, "kettfäden", "7"):
        found = client.get("/runs/small/map.json", params={"search": search}).json()
        table = client.get("/runs/small.json", params={"search": search, "limit": 1000}).json()
        assert found["found"] == [row["latent"] for row in table["rows"]] and found["n_found"] == table["found"]
    assert client.get("/runs/small/map.json").json()["found"] is None
    assert client.get("/runs/small/map.json").json()["labels"]["42"] == "Kettfäden"


def test_chosen_latents_become_a_list(client: TestClient) -> None:
    made = client.post("/runs/small/lists", json={"name": f"  {HOSTILE[:40]} ", "latents": [7, 60, 7, 12]}).json()
    assert made["n_latents"] == 3
    assert client.get("/runs/small/map.json").json()["lists"][made["name"]] == [7, 12, 60]
    again = client.post("/runs/small/lists", json={"name": made["name"], "latents": [61]}).json()
    assert again["n_latents"] == 4
    client.delete(f"/runs/small/lists/{made['name']}")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "a", "latents": [63]}, 400),
        ({"name": " ", "latents": [1]}, 400),
        ({"name": "a", "latents": []}, 422),
        ({"name": "a", "latents": [-1]}, 422),
        ({"name": "a", "latents": [10**30]}, 422),
        ({"name": "x" * 101, "latents": [1]}, 422),
    ],
)
def test_a_list_that_cannot_be_is_refused(client: TestClient, body: dict, status: int) -> None:
    before = client.get("/runs/small/map.json").json()["lists"]
    answer = client.post("/runs/small/lists", json=body)
    assert answer.status_code == status and "\n" not in answer.json()["error"]
    assert client.get("/runs/small/map.json").json()["lists"] == before


@pytest.mark.parametrize("run", ["sub~bare", "begun", "other"])
def test_a_run_without_an_index_says_what_to_run(client: TestClient, run: str) -> None:
    for part in ("map.json", "map/points.json"):
        answer = client.get(f"/runs/{run}/{part}")
        assert answer.status_code == 400 and "`unweave index " in answer.json()["error"]


@pytest.mark.slow
def test_umap_is_kept_and_the_same_again(runs: Path, tmp_path: Path) -> None:
    pytest.importorskip("umap", reason="pip install 'unweave[map]'")
    for name in ("one", "two"):
        shutil.copytree(runs / "small", tmp_path / name, ignore=shutil.ignore_patterns("map"))
    client = TestClient(create_app(tmp_path), base_url=ADDRESS)
    first = points_of(client, "one", projection="umap")
    assert np.ptp(first["x"]) > 0.5 and np.ptp(first["y"]) > 0.5 and first["axes"] == []
    kept = np.load(tmp_path / "one" / "map" / "umap-0.npy")
    second = points_of(client, "two", projection="umap")
    assert (first["x"], first["y"]) == (second["x"], second["y"])
    np.save(tmp_path / "one" / "map" / "umap-0.npy", kept[::-1])
    fresh = TestClient(create_app(tmp_path), base_url=ADDRESS)
    assert points_of(fresh, "one", projection="umap")["x"] == first["x"][::-1], "what is kept is read"


def place(page: Page, points: dict, latent: int) -> tuple[float, float]:
    """Where a latent is in the window before anybody has moved the plane: the shorter side of the canvas, less an edge
    of 28 pixels on either end, is two units."""
    box = page.locator("canvas").bounding_box()
    assert box is not None
    unit = min(box["width"], box["height"]) / 2 - 28
    x, y = box["x"] + box["width"] / 2 + unit * points["x"][latent], box["y"] + box["height"] / 2
    return x, y - unit * points["y"][latent]


@pytest.mark.browser
def test_pointing_tells_of_a_latent_and_clicking_opens_it(visit: Callable[..., Page], client: TestClient) -> None:
    points = points_of(client)
    alone = max(range(63), key=lambda i: np.hypot(points["x"][i], points["y"][i]))
    page = visit("/runs/small/map")
    page.wait_for_selector("canvas[data-points='63']")
    page.mouse.move(*place(page, points, alone))
    page.wait_for_selector(f".map-tip:has-text('Latent {alone}')")
    page.mouse.click(*place(page, points, alone))
    page.wait_for_url(f"**/runs/small/latents/{alone}")


@pytest.mark.browser
def test_a_box_chooses_latents_for_a_list(visit: Callable[..., Page], client: TestClient) -> None:
    points = points_of(client)
    page = visit("/runs/small/map")
    page.wait_for_selector("canvas[data-points='63']")
    page.keyboard.press("b")
    box = page.locator("canvas").bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2
    page.mouse.move(middle, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] - 2, steps=4)
    page.mouse.up()
    right = [latent for latent, x in enumerate(points["x"]) if x > 0]
    assert 3 < len(right) < 60
    page.wait_for_selector(f"h2:has-text('{len(right)} latents selected')")
    page.reload()  # what was chosen is in the address
    page.wait_for_selector(f"h2:has-text('{len(right)} latents selected')")
    page.get_by_label("Name of a list").fill("on the right")
    page.get_by_role("button", name="Save as list").click()
    page.wait_for_selector(f"text=has {len(right)} latents now")
    assert client.get("/runs/small/map.json").json()["lists"]["on the right"] == right
    client.delete("/runs/small/lists/on the right")


@pytest.mark.browser
def test_search_colours_and_themes_are_shown(visit: Callable[..., Page]) -> None:
    page = visit(
        "/runs/small/map?colour=cluster&clusters=4", color_scheme="dark", viewport={"width": 390, "height": 800}
    )
    page.wait_for_selector("canvas[data-points='63']")
    assert page.locator(".class-legend li").count() == 4
    page.locator(".class-legend button").first.click()
    page.wait_for_selector("h2:has-text('latents selected')")
    page.get_by_label("Search").fill("7")
    page.wait_for_selector("h2:has-text('found')")
    page.keyboard.press("Escape")
    page.keyboard.press("c")
    page.wait_for_url("**colour=max**")
    page.wait_for_selector(".ramp-legend")
    page.locator("canvas").press("+")
    page.get_by_role("button", name="Theme").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
