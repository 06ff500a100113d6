"""The page of all runs."""

from collections.abc import Callable

from fastapi.testclient import TestClient
from playwright.sync_api import Page


def test_every_run_below_the_folder_is_listed_with_the_state_of_its_index(client: TestClient) -> None:
    page = client.get("/index.json").json()
    states = {run["name"]: (run["path"], run["index"]) for run in page["runs"]}
    assert states == {
        "small": ("small", "ready"),
        "sub~bare": ("sub/bare", "none"),
        "begun": ("begun", "partial"),
        "other": ("other", "ready"),
    }


def test_the_page_shows_a_row_for_each_run(visit: Callable[..., Page]) -> None:
    page = visit("/")
    assert sorted(page.locator(".run-name").all_inner_texts()) == ["begun", "other", "small", "sub/bare"]
