"""The page of one latent: the record, the live test, labels."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from playwright.sync_api import Page

from unweave.models.language_model import LanguageModel
from unweave.storage.index_folder import LatentIndex
from unweave.storage.run_folder import Run

from .conftest import DEAD, HOSTILE


@pytest.fixture(scope="module")
def index(runs: Path) -> LatentIndex:
    return LatentIndex(runs / "small" / "index")


@pytest.fixture(scope="module")
def busiest(index: LatentIndex) -> int:
    return max(index, key=lambda record: record.n_fires).latent


@pytest.mark.parametrize("context", ["5", "12", "40", "whole"])
def test_the_page_has_the_whole_record_and_the_text_of_its_tokens(
    client: TestClient, index: LatentIndex, busiest: int, context: str
) -> None:
    page = client.get(f"/runs/small/latents/{busiest}.json?context={context}").json()
    reach = 32 if context == "whole" else int(context)
    assert page["latent"] == json.loads(json.dumps(asdict(index.record(busiest, reach=reach))))
    assert "dense over 10 %" in page["flags"]
    vocabulary = index.vocabulary()
    assert page["texts"] and all(text == vocabulary[int(token)] for token, text in page["texts"].items())
    for example in page["latent"]["examples"]:
        assert {str(token) for token in example["token_ids"]} <= page["texts"].keys()
    partners = {str(partner["latent"]) for partner in page["latent"]["partners"]}
    assert partners <= page["others"].keys()


@pytest.mark.parametrize("latent", ["63", "99999999999999999999", "-1", "x"])
def test_a_latent_that_is_not_there_is_refused(client: TestClient, latent: str) -> None:
    answer = client.get(f"/runs/small/latents/{latent}.json")
    assert answer.status_code in (404, 422) and answer.json()["error"]


def test_a_test_gives_what_model_and_coder_give_window_by_window(client: TestClient, runs: Path, busiest: int) -> None:
    run = Run(runs / "small")
    model = LanguageModel.load(run.coder.origin.model if run.coder.origin else "")
    text = f"{HOSTILE} She pulls one thread at a time. " * 5
    tested = client.post(f"/runs/small/latents/{busiest}/test", json={"text": text}).json()
    ids = model.tokens(text, prepend_bos=False)[0]
    bos = model.tokenizer.bos_token_id
    assert [token for window in tested["windows"] for token in window["token_ids"][1:]] == ids.tolist()
    assert len(tested["windows"]) == -(-len(ids) // 31) > 2
    for window in tested["windows"]:
        assert window["token_ids"][0] == bos and window["activations"][0] == 0
        x = model.capture(torch.tensor([window["token_ids"]]), run.coder.site)[run.coder.site][0]
        expected = run.coder.encode(x).dense()[1:, busiest].tolist()
        np.testing.assert_allclose(window["activations"][1:], expected, rtol=1e-3, atol=1e-4)
    strongest = max(max(window["activations"]) for window in tested["windows"])
    assert tested["max_activation"] == strongest > 0


@pytest.mark.parametrize("text", [HOSTILE, "\x00", " ", "\ufeff", "\U0001f9f6" * 63, "א" * 100, "\r\n\t"])
def test_any_text_is_read(client: TestClient, text: str) -> None:
    assert client.post("/runs/small/latents/7/test", json={"text": text}).status_code == 200


def test_a_text_of_100000_characters_is_read_and_a_longer_one_refused(client: TestClient) -> None:
    text = "over and under, " * 6250
    tested = client.post("/runs/small/latents/7/test", json={"text": text}).json()
    shown = {int(token): text for token, text in tested["texts"].items()}
    read = "".join(shown[token] for window in tested["windows"] for token in window["token_ids"][1:])
    assert len(text) == 100_000 and read == text
    refused = client.post("/runs/small/latents/7/test", json={"text": text + "x"})
    assert refused.status_code == 422 and "100000 characters" in refused.json()["error"]


@pytest.mark.parametrize("body", [b'{"text": "\\ud800"}', b"{}", b"[]", b"\xff\xfe", b'{"text": 7}', b'{"text": ""}'])
def test_a_body_that_is_no_text_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post("/runs/small/latents/7/test", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422 and "\n" not in answer.json()["error"]


def test_a_label_is_written_and_its_history_kept(client: TestClient) -> None:
    client.put("/runs/small/latents/5/label", json={"label": "first"})
    answer = client.put("/runs/small/latents/5/label", json={"label": HOSTILE, "note": "a\nb"}).json()
    page = client.get("/runs/small/latents/5.json").json()
    assert page["written"] == answer["written"] == {"label": " ".join(HOSTILE.split()), "note": "a\nb"}
    changes = [(change["field"], change["old"], change["new"]) for change in page["history"]]
    assert changes[:2] == [("note", "", "a\nb"), ("label", "first", page["written"]["label"])]
    assert client.put("/runs/small/latents/5/label", json={"label": "x" * 201}).status_code == 422
    assert client.put("/runs/small/latents/63/label", json={"label": "x"}).status_code == 404


@pytest.mark.browser
def test_the_page_shows_examples_with_their_activations(
    visit: Callable[..., Page], index: LatentIndex, busiest: int
) -> None:
    page = visit(f"/runs/small/latents/{busiest}")
    record = index.record(busiest)
    assert page.locator("h1").inner_text().startswith(f"Latent {busiest}")
    n_examples = len(record.examples) + sum(len(group.examples) for group in record.groups)
    assert page.locator(".examples .strip").count() == n_examples
    assert (
        page.locator(".examples .peak-value").first.inner_text()
        == f"{record.examples[0].activations[record.examples[0].peak]:.3g}"
    )
    page.locator(".token.peak").first.hover()
    assert "of the strongest" in page.locator(".tooltip").inner_text()
    page.get_by_role("button", name="whole").click()
    page.wait_for_url("**context=whole")
    page.wait_for_selector("body[data-drawn='2']")
    whole = index.record(busiest, reach=32)
    assert page.locator(".examples .strip").first.locator(".token").count() == len(whole.examples[0].token_ids)


@pytest.mark.browser
def test_keys_lead_to_the_next_latent_and_the_test_is_made_anew(visit: Callable[..., Page], busiest: int) -> None:
    page = visit(f"/runs/small/latents/{busiest}")
    page.keyboard.press("t")
    page.keyboard.insert_text(HOSTILE)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".tested .strip")
    assert page.locator(".tested img").count() == 0, "a text is never read as markup"
    assert "‹1b›[31m" in page.locator(".tested").inner_text(), "what cannot be seen is named"
    page.keyboard.press("Escape")
    page.keyboard.press("p" if busiest else "n")
    other = busiest - 1 if busiest else 1
    page.wait_for_url(f"**/latents/{other}")
    page.get_by_role("heading", name=f"Latent {other} ").wait_for()
    assert page.title().startswith(f"Latent {other} ")
    assert page.locator(".test textarea").input_value() == HOSTILE, "the text stays, to compare latents on it"


@pytest.mark.browser
def test_a_label_and_a_list_of_ones_own_are_kept(visit: Callable[..., Page]) -> None:
    page = visit("/runs/small/latents/9", color_scheme="dark", viewport={"width": 390, "height": 800})
    page.locator("#label").fill("nine <b>lives</b>")
    page.get_by_role("button", name="Save").click()
    page.wait_for_selector("details")
    page.get_by_label("New list").fill("cats")
    page.get_by_role("button", name="Add").click()
    page.wait_for_selector("button.list[aria-pressed=true]")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    again = visit("/runs/small/lists")
    assert "nine <b>lives</b>" in again.locator("main").inner_text()
    assert again.locator(".list-name").all_inner_texts().count("cats") == 1


@pytest.mark.browser
def test_a_latent_that_never_fires_has_a_page(client: TestClient, visit: Callable[..., Page]) -> None:
    page = client.get(f"/runs/small/latents/{DEAD}.json").json()
    assert page["flags"] == ["dead"] and page["latent"]["examples"] == []
    assert "never fires" in visit(f"/runs/small/latents/{DEAD}").locator(".notice").inner_text()
