"""Lists of latents: made on a latent's page, shown, renamed and removed on a page of their own."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Page, expect


def put(client: TestClient, name: str, *latents: int, listed: bool = True) -> dict[str, bool]:
    for latent in latents:
        answer = client.put("/runs/small/lists", json={"name": name, "latent": latent, "listed": listed})
    return answer.json()["lists"]


def test_a_list_is_shown_with_its_latents(client: TestClient) -> None:
    assert put(client, "warp", 31, 4)["warp"]
    assert not put(client, "warp", 31, listed=False)["warp"]
    page = client.get("/runs/small/lists.json").json()
    (own,) = (one for one in page["lists"] if one["name"] == "warp")
    assert own["n_latents"] == 1 and [row["latent"] for row in own["rows"]] == [4]
    assert client.get("/runs/small/latents/4.json").json()["lists"]["warp"]


@pytest.mark.parametrize("name", ["weft", "a/b", "50 % & more?", "שלום", "#1", ".."])
def test_a_list_of_any_name_is_renamed_and_removed(client: TestClient, name: str) -> None:
    put(client, name, 7)
    answer = client.patch("/runs/small/lists", json={"name": name, "new": f"{name} again"})
    assert f"{name} again" in answer.json()["lists"] and name not in answer.json()["lists"]
    assert client.delete("/runs/small/lists", params={"name": name}).status_code == 400
    assert client.delete("/runs/small/lists", params={"name": f"{name} again"}).status_code == 200
    assert f"{name} again" not in client.get("/runs/small.json").json()["lists"]


def test_a_latent_that_is_not_there_is_on_no_list(client: TestClient) -> None:
    answer = client.put("/runs/small/lists", json={"name": "far", "latent": 63, "listed": True})
    assert answer.status_code == 404 and "far" not in client.get("/runs/small.json").json()["lists"]


@pytest.mark.browser
def test_the_page_renames_and_removes(client: TestClient, visit: Callable[..., Page]) -> None:
    put(client, "bobbin", 3)
    page = visit("/runs/small/lists")
    section = page.locator("section", has=page.get_by_role("link", name="bobbin", exact=True))
    section.get_by_role("button", name="Rename").click()
    page.get_by_label("New name").fill("spindle")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="spindle", exact=True).wait_for()
    section = page.locator("section", has=page.get_by_role("link", name="spindle", exact=True))
    section.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("link", name="spindle", exact=True)).to_have_count(0)
    assert "spindle" not in client.get("/runs/small.json").json()["lists"]
