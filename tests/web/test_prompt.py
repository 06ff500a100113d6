"""The page of a prompt, against the model, the coder and the index themselves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from playwright.sync_api import Page

from unweave.models.language_model import LanguageModel
from unweave.storage.index_folder import LatentIndex
from unweave.storage.run_folder import Run

from .conftest import HOSTILE

TEXT = "She pulls one thread at a time. Seven threads made 63 knots.\n" * 4
WINDOW = 32


@pytest.fixture(scope="module")
def index(runs: Path) -> LatentIndex:
    return LatentIndex(runs / "small" / "index")


@pytest.fixture(scope="module")
def by_hand(runs: Path) -> tuple[np.ndarray, np.ndarray, LanguageModel]:
    """Tokens of the windows of ``TEXT``, beginnings included, and the dense activations on each."""
    coder = Run(runs / "small").coder
    model = LanguageModel.load(coder.origin.model if coder.origin else "")
    ids, bos = model.tokens(TEXT, prepend_bos=False)[0], torch.tensor([model.tokenizer.bos_token_id])
    tokens, rows = [], []
    for start in range(0, len(ids), WINDOW - 1):
        window = torch.cat([bos, ids[start : start + WINDOW - 1]])
        x = model.capture(window[None], coder.site)[coder.site][0]
        active = coder.encode(x).dense()
        active[0] = 0
        tokens.append(window.numpy())
        rows.append(active.detach().numpy())
    return np.concatenate(tokens), np.concatenate(rows), model


def ask(client: TestClient, **asked: Any) -> dict[str, Any]:
    answer = client.get("/runs/small/prompt.json", params={"text": TEXT, **asked})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_table_is_what_the_activations_say(client: TestClient, by_hand: tuple, index: LatentIndex) -> None:
    tokens, active, _ = by_hand
    page = ask(client)
    assert page["n_tokens"] == len(tokens) and page["n_windows"] == -(-len(tokens) // WINDOW) > 2
    assert page["found"] == (active.max(0) > 0).sum()
    largest = [row["max"] for row in page["latents"]]
    assert largest == sorted(largest, reverse=True)
    for row in page["latents"]:
        own, record = active[:, row["latent"]], index[row["latent"]]
        assert row["max"] == pytest.approx(own.max(), rel=1e-3) and row["sum"] == pytest.approx(own.sum(), rel=1e-3)
        assert row["n_fires"] == (own > 0).sum() and own[row["peak"]] == pytest.approx(own.max(), rel=1e-4)
        assert row["peak_id"] == tokens[row["peak"]]
        assert row["share"] == pytest.approx(own.max() / record.max_activation, rel=1e-3)
        assert row["surprise"] == pytest.approx(row["share"] / record.density, rel=1e-3)
        assert page["rows"][str(row["latent"])]["density"] == record.density


@pytest.mark.parametrize("sort", ["sum", "surprise"])
def test_the_table_sorts(client: TestClient, sort: str) -> None:
    figures = [row[sort] for row in ask(client, sort=sort)["latents"]]
    assert figures == sorted(figures, reverse=True) and len(set(figures)) > 7


def test_a_selected_token_has_its_latents_and_what_comes_next(client: TestClient, by_hand: tuple) -> None:
    tokens, active, model = by_hand
    for place in (5, WINDOW + 3, WINDOW - 1):
        selected = ask(client, token=place)["selected"]
        own = {latent: value for latent, value in enumerate(active[place]) if value > 0}
        assert selected["n_active"] == len(own)
        assert {one["latent"]: one["activation"] for one in selected["latents"]} == pytest.approx(own, rel=1e-3)
        first = place // WINDOW * WINDOW
        probability = model.logits(torch.from_numpy(tokens[None, first : first + WINDOW]))[0, place - first].softmax(0)
        likely = dict(selected["likely"])
        assert len(likely) == 5 and likely == pytest.approx(
            {int(i): float(probability[i]) for i in probability.topk(5).indices}, rel=1e-3
        )
        if place == WINDOW - 1:
            assert selected["comes"] is None, "the next token is in another window"
        else:
            comes = int(tokens[place + 1])
            assert selected["comes"] == pytest.approx([comes, float(probability[comes])], rel=1e-3)
            assert selected["rank"] == (probability > probability[comes]).sum()


def test_pinned_latents_are_given_on_every_token(client: TestClient, by_hand: tuple) -> None:
    _, active, _ = by_hand
    pins = np.argsort(-active.max(0))[:2].tolist()
    page = ask(client, pin=pins, special=True)
    assert page["stretch"]["places"] == list(range(len(active)))
    for latent in pins:
        assert page["pinned"][str(latent)] == pytest.approx(active[:, latent].tolist(), rel=1e-3)


def test_dense_latents_and_special_tokens_are_left_out(client: TestClient, by_hand: tuple, index: LatentIndex) -> None:
    tokens, active, model = by_hand
    page = ask(client, density=0.1)
    assert all(index[row["latent"]].density <= 0.1 for row in page["latents"])
    assert 0 < page["found"] < (active.max(0) > 0).sum()
    special = tokens == model.tokenizer.bos_token_id
    assert page["stretch"]["places"] == np.flatnonzero(~special).tolist()


def test_a_long_text_is_shown_in_stretches(client: TestClient) -> None:
    text = (TEXT * 500)[:100_000]
    answer = client.post("/runs/small/prompt", json={"text": text, "start": 10**9, "special": True})
    page = answer.json()
    assert answer.status_code == 200 and page["n_tokens"] > 20_000
    assert page["stretch"]["places"][-1] == page["n_tokens"] - 1
    assert page["stretch"]["start"] % page["page"] == 0 and len(page["stretch"]["places"]) <= page["page"]
    assert all(len(row["lane"]) <= 192 and max(row["lane"]) == pytest.approx(1, rel=1e-3) for row in page["latents"])
    assert client.post("/runs/small/prompt", json={"text": text + "x"}).status_code == 422


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"token": 10**6}, "there is no token 1,000,000"),
        ({"pin": 63}, "there is no latent 63"),
        ({"density": "nan"}, "density"),
        ({"sort": "name"}, "sort"),
        ({"pin": [1, 2, 3, 4, 5, 6, 7]}, "at most 6"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(client: TestClient, asked: dict[str, Any], said: str) -> None:
    answer = client.get("/runs/small/prompt.json", params={"text": TEXT, **asked})
    assert answer.status_code in (400, 404, 422) and said in answer.json()["error"]


def test_any_text_is_safe(client: TestClient) -> None:
    for text in (HOSTILE, "\x00", "\u202e", "\U0001f9f6" * 50, " ", "<|endoftext|>"):
        assert client.post("/runs/small/prompt", json={"text": text, "token": 0}).status_code == 200
    answer = client.post(
        "/runs/small/prompt", content=rb'{"text": "\ud800"}', headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422


@pytest.mark.browser
def test_a_text_is_typed_a_token_chosen_and_latents_pinned(visit: Callable[..., Page]) -> None:
    page = visit("/runs/small/prompt")
    page.get_by_label("Text").fill(f"{HOSTILE} one thread at a time")
    page.keyboard.press("Control+Enter")
    page.wait_for_url("**/prompt?text=*")
    page.wait_for_selector(".prompt-tokens .token")
    assert page.locator("main img").count() == 0
    assert page.locator(".standing tbody tr").count() > 7
    page.locator(".prompt-tokens .token").nth(4).click()
    page.wait_for_url("**token=*")
    page.wait_for_selector(".selected-token")
    assert page.locator(".likely li").count() >= 5
    for pinned in (1, 2):
        page.locator(".standing button[aria-pressed=false]").first.click()
        page.wait_for_selector(f".pins li:nth-child({pinned})")
    assert len([part for part in page.url.split("&") if part.startswith("pin=")]) == 2
    assert page.locator(".token.laned").count() > 1
    page.go_back()
    page.wait_for_selector(".pins li:nth-child(2)", state="detached")
    page.locator(".pins a").first.click()
    page.wait_for_url("**/latents/*")


@pytest.mark.browser
def test_a_text_that_is_too_long_for_an_address_stays_in_the_tab(visit: Callable[..., Page]) -> None:
    page = visit("/runs/small/prompt")
    page.get_by_label("Text").fill(TEXT * 50)
    page.get_by_role("button", name="Read", exact=True).click()
    page.wait_for_selector(".prompt-tokens .token")
    assert "text=" not in page.url
    assert "windows of 32 tokens" in page.locator(".prompt-note").inner_text()
    shown = page.locator(".prompt-tokens .token").count()
    page.get_by_role("button", name="Next", exact=False).click()
    page.wait_for_url("**start=2048*")
    assert 0 < shown < 2048 + 1


@pytest.mark.browser
def test_a_text_in_the_address_is_drawn_at_once(visit: Callable[..., Page]) -> None:
    page = visit("/runs/small/prompt?text=one+thread&token=2")
    assert page.get_by_label("Text").input_value() == "one thread"
    assert page.locator(".token[aria-current=true]").count() == 1
