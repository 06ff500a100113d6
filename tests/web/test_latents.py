"""The table of latents, against the index itself."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Page

from unweave.storage.index_folder import LatentIndex


@pytest.fixture(scope="module")
def index(runs: Path) -> LatentIndex:
    return LatentIndex(runs / "small" / "index")


def test_the_table_sorts_filters_and_pages(client: TestClient, index: LatentIndex) -> None:
    asked = {
        "sort": "density",
        "descending": "true",
        "range": ["density:0.01:0.2", "max:0.5:"],
        "limit": 7,
        "offset": 3,
    }
    page = client.get("/runs/small.json", params=asked).json()
    records = [record for record in index if 0.01 <= record.density <= 0.2 and record.max_activation >= 0.5]
    records.sort(key=lambda record: (-record.density, record.latent))
    assert page["found"] == len(records) > 10
    assert [row["latent"] for row in page["rows"]] == [record.latent for record in records[3:10]]


def test_the_histogram_counts_every_latent_that_fires(client: TestClient, index: LatentIndex) -> None:
    densities = client.get("/runs/small.json").json()["densities"]
    alive = [record.density for record in index if record.n_fires]
    assert densities["n_dead"] == len(index) - len(alive) and sum(densities["counts"]) == len(alive)
    for low, high, n in zip(densities["edges"], densities["edges"][1:], densities["counts"], strict=False):
        assert n == sum(10**low <= density < 10**high for density in alive)


def test_a_search_finds_tokens_labels_and_numbers(client: TestClient, index: LatentIndex) -> None:
    client.put("/runs/small/latents/11/label", json={"label": "Wörter über Fäden"})
    found = client.get("/runs/small.json", params={"search": "über fä"}).json()
    assert [row["latent"] for row in found["rows"]] == [11] and found["labels"] == {"11": "Wörter über Fäden"}
    labelled = client.get("/runs/small.json", params={"labelled": "true"}).json()
    assert 11 in [row["latent"] for row in labelled["rows"]] and labelled["found"] < len(index)
    by_number = client.get("/runs/small.json", params={"search": "42"}).json()
    assert 42 in [row["latent"] for row in by_number["rows"]]


def test_a_list_filters_the_table(client: TestClient) -> None:
    for latent in (3, 60, 7):
        client.put("/runs/small/lists", json={"name": "threads & knots", "latent": latent, "listed": True})
    page = client.get("/runs/small.json", params={"list": "threads & knots", "range": "latent:5:"}).json()
    assert [row["latent"] for row in page["rows"]] == [7, 60] and "threads & knots" in page["lists"]
    assert client.get("/runs/small.json", params={"list": "no such"}).status_code == 400


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("sort=densty", "density"),
        ("range=density", "a range is column:smallest:largest"),
        ("range=density:a:1", "numbers for ends, got 'a'"),
        ("range=density:nan:", "finite"),
        ("range=sheet:0:1", "sheet"),
        ("limit=0", "limit"),
        ("offset=99999999999999999999", "offset"),
    ],
)
def test_what_the_table_lacks_is_refused_in_one_line(client: TestClient, query: str, said: str) -> None:
    answer = client.get(f"/runs/small.json?{query}")
    assert answer.status_code in (400, 422)
    assert said in answer.json()["error"] and "\n" not in answer.json()["error"]


@pytest.mark.parametrize(
    ("run", "said"),
    [("sub~bare", "has no latent index"), ("begun", "is not finished"), ("other", "is of another coder")],
)
def test_a_run_whose_index_does_not_serve_says_what_to_run(client: TestClient, run: str, said: str) -> None:
    answer = client.get(f"/runs/{run}.json")
    assert answer.status_code == 400
    assert said in answer.json()["error"] and "`unweave index " in answer.json()["error"]


@pytest.mark.browser
def test_clicking_a_heading_sorts_and_back_returns(visit: Callable[..., Page]) -> None:
    page = visit("/runs/small")
    first = page.locator("a.latent").first
    assert first.inner_text() == "0"
    page.get_by_role("button", name="Density", exact=True).click()
    page.wait_for_url("**/runs/small?sort=density&descending=true")
    page.wait_for_selector("th[aria-sort=descending]")
    shares = [row.split("\n")[0] for row in page.locator("td[data-label=Density]").all_inner_texts()]
    numbers = [float(share.rstrip(" %")) for share in shares]
    assert numbers == sorted(numbers, reverse=True) and len(set(numbers)) > 7
    page.go_back()
    page.wait_for_selector("th[aria-sort=ascending]")
    assert first.inner_text() == "0"


@pytest.mark.browser
def test_dragging_over_the_histogram_filters_by_density(visit: Callable[..., Page], client: TestClient) -> None:
    page = visit("/runs/small")
    box = page.locator(".brush svg").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 20, steps=5)
    page.mouse.up()
    page.wait_for_url("**/runs/small?range=density*")
    page.wait_for_selector("body[data-drawn='2']")
    asked = parse_qs(urlsplit(page.url).query)
    found = client.get("/runs/small.json", params=asked).json()["found"]
    assert page.locator(".filters output").inner_text() == f"{found} latents of 63"
    page.get_by_role("button", name="Any density").click()
    page.wait_for_url("**/runs/small")


@pytest.mark.browser
def test_keys_search_and_move_through_the_rows(visit: Callable[..., Page]) -> None:
    page = visit("/runs/small")
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.textContent") == "1"
    page.keyboard.press("/")
    page.keyboard.type("42")
    page.wait_for_url("**/runs/small?search=42")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.get_by_role("dialog").locator("dt").count() >= 7


@pytest.mark.browser
@pytest.mark.parametrize("run", ["sub~bare", "begun", "other", "no-such-run"])
def test_a_page_that_cannot_be_shown_says_why(visit: Callable[..., Page], run: str) -> None:
    page = visit(f"/runs/{run}")
    said = page.locator(".notice.problem").inner_text()
    assert "unweave index" in said or "there is no run 'no-such-run'" in said
