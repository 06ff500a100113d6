"""The page of steering: streams of events against the model itself, and a browser that watches one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from playwright.sync_api import Page

from unweave.models.language_model import LanguageModel
from unweave.storage.index_folder import LatentIndex
from unweave.storage.run_folder import Run
from unweave.web.app import create_app

from .conftest import ADDRESS, DEAD, HOSTILE

PROMPT = "She pulls one thread"


@pytest.fixture(scope="module")
def index(runs: Path) -> LatentIndex:
    return LatentIndex(runs / "small" / "index")


@pytest.fixture(scope="module")
def busiest(index: LatentIndex) -> int:
    return max(index, key=lambda record: record.n_fires).latent


def steer(client: TestClient, *latents: dict[str, Any], **settings: Any) -> list[dict[str, Any]]:
    body = {"prompt": PROMPT, "n_tokens": 12, "latents": latents, **settings}
    answer = client.post("/runs/small/steer.json", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def side(events: list[dict[str, Any]], name: str) -> list[int]:
    return [event["token_id"] for event in events if event["kind"] == "token" and event["side"] == name]


def test_both_texts_are_those_of_the_model(client: TestClient, runs: Path, index: LatentIndex, busiest: int) -> None:
    events = steer(client, {"latent": busiest, "mode": "add", "strength": 4.0, "unit": "max"})
    coder = Run(runs / "small").coder
    model = LanguageModel.load(coder.origin.model if coder.origin else "")
    tokens = model.tokens(PROMPT)
    mask = torch.ones_like(tokens)
    clean = model.model.generate(tokens, attention_mask=mask, do_sample=False, max_new_tokens=12)
    assert side(events, "baseline") == clean[0, tokens.shape[1] :].tolist()
    moved = 4.0 * index[busiest].max_activation * coder.W_dec[busiest].detach()

    def add(x: torch.Tensor) -> torch.Tensor:
        added = moved.expand_as(x).clone()
        added[:, 0] = 0  # the token in front of the text, which the coder never saw
        return x + added

    steered, logits = tokens, []
    for _ in side(events, "steered"):
        with model.patch({coder.site: add}):
            logits.append(model.logits(steered)[0, -1])
        steered = torch.cat([steered, logits[-1].argmax()[None, None]], dim=1)
    assert side(events, "steered") == steered[0, tokens.shape[1] :].tolist()
    before = model.logits(steered[:, :-1])[0, tokens.shape[1] - 1 :].log_softmax(-1)
    after = torch.stack(logits).log_softmax(-1)
    by_hand = (before.exp() * (before - after)).sum(-1).tolist()
    assert events[-1]["kind"] == "end" and events[-1]["kl"] == pytest.approx(by_hand, rel=1e-2, abs=1e-4)
    first = next(event for event in events if event["kind"] == "next")
    assert first["kl"] == pytest.approx(by_hand[0], rel=1e-2, abs=1e-4)
    for token, _, p, q in first["likely"]:
        assert (p, q) == pytest.approx((float(before[0, token].exp()), float(after[0, token].exp())), rel=1e-2)


def test_a_stream_is_the_list_line_by_line(client: TestClient, busiest: int) -> None:
    latent = {"latent": busiest, "mode": "clamp", "strength": 2, "unit": "absolute"}
    events = steer(client, latent, temperature=0.8, seed=63)
    body = {"prompt": PROMPT, "n_tokens": 12, "latents": [latent], "temperature": 0.8, "seed": 63}
    with client.stream("POST", "/runs/small/steer", json=body) as answer:
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        assert [json.loads(line) for line in answer.iter_lines()] == events
    assert steer(client, latent, temperature=0.8, seed=64) != events


def test_what_is_not_steered_stays_the_same(client: TestClient, busiest: int) -> None:
    strong = {"latent": busiest, "mode": "clamp", "strength": 50.0}
    nothing = steer(client, {"latent": busiest, "mode": "scale", "strength": 1.0}, temperature=1.0)
    assert side(nothing, "baseline") == side(nothing, "steered") and max(nothing[-1]["kl"]) < 1e-4
    later = steer(client, strong, positions="generated")
    assert side(later, "baseline")[0] == side(later, "steered")[0] and later[-1]["kl"][0] < 1e-5 < max(later[-1]["kl"])
    never = steer(client, strong, positions="from", first=60)
    assert side(never, "baseline") == side(never, "steered")
    prompt_only = steer(client, strong, positions="prompt")
    assert prompt_only[-1]["kl"][0] > 1e-3


def test_a_text_ends_where_the_context_is_full(client: TestClient, busiest: int) -> None:
    events = steer(client, {"latent": busiest, "mode": "ablate"}, n_tokens=400)
    assert set(events[-1]["because"].values()) <= {"context", "end of text"}
    refused = {"prompt": "thread " * 100, "latents": [{"latent": busiest}]}
    answer = client.post("/runs/small/steer", json=refused)
    assert answer.status_code == 400 and "reads at most 63 tokens" in answer.json()["error"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"latents": []}, "latents"),
        ({"latents": [{"latent": 63}]}, "there is no latent 63"),
        ({"latents": [{"latent": 7}, {"latent": 7}]}, "steered twice"),
        ({"latents": [{"latent": DEAD}]}, "latent 62 never fires"),
        ({"n_tokens": 10**9}, "n_tokens"),
        ({"temperature": "Infinity"}, "temperature"),
        ({"latents": [{"latent": 7, "mode": "melt"}]}, "mode"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(client: TestClient, change: dict[str, Any], said: str) -> None:
    body = {"prompt": PROMPT, "latents": [{"latent": 7}], **change}
    for address in ("/runs/small/steer", "/runs/small/steer.json"):
        answer = client.post(address, json=body)
        assert answer.status_code in (400, 404, 422) and said in answer.json()["error"]


def test_an_address_says_what_to_steer(client: TestClient, index: LatentIndex) -> None:
    asked = {
        "prompt": HOSTILE,
        "steer": ["7:clamp:-2.5:absolute", "11:ablate", "12"],
        "positions": "prompt",
        "seed": 63,
    }
    page = client.get("/runs/small/steer.json", params=asked).json()
    assert page["latents"] == [
        {"latent": 7, "mode": "clamp", "strength": -2.5, "unit": "absolute"},
        {"latent": 11, "mode": "ablate", "strength": 1.0, "unit": "max"},
        {"latent": 12, "mode": "add", "strength": 1.0, "unit": "max"},
    ]
    assert page["settings"]["prompt"] == HOSTILE and page["settings"]["seed"] == 63 and page["problem"] == ""
    assert page["rows"]["7"]["max"] == index[7].max_activation
    for text in ("7:melt", "seven", "7:add:nan", "7:add:1:max:1", "", "-1"):
        answer = client.get("/runs/small/steer.json", params={"steer": text})
        assert answer.status_code == 400 and "latent:mode:strength:unit" in answer.json()["error"]


@pytest.mark.browser
def test_a_text_is_steered_while_one_looks(visit: Callable[..., Page], busiest: int) -> None:
    page = visit(f"/runs/small/steer?prompt=She+pulls&steer={busiest}:add:3&n_tokens=20")
    assert page.locator(".steered-latent").count() == 1
    page.get_by_role("button", name="Write", exact=True).click()
    page.wait_for_selector(".side-steered .token")
    page.wait_for_selector(".outcome[data-done]")
    written = page.locator(".side-steered .written").inner_text()
    assert len(written) > 20 and written != page.locator(".side-baseline .written").inner_text()
    assert page.locator(".changes li").count() >= 5 and "KL" in page.locator(".next-change").inner_text()
    assert page.locator(".side-steered .token[style*=heat]").count() > 1


@pytest.mark.browser
def test_the_address_follows_what_is_set(visit: Callable[..., Page], busiest: int) -> None:
    page = visit("/runs/small/steer")
    page.get_by_label("Prompt").fill(HOSTILE)
    page.get_by_label("Add a latent").fill(str(busiest))
    page.locator("#found-latents [role=option]").first.click()
    page.wait_for_selector(".steered-latent")
    page.get_by_label("What to do").select_option("clamp")
    page.wait_for_url(f"**steer={busiest}%3Aclamp*")
    page.get_by_label("Strength", exact=True).fill("2.5")
    page.get_by_label("Strength", exact=True).press("Enter")
    page.wait_for_url(f"**steer={busiest}%3Aclamp%3A2.5*")
    page.get_by_label("Positions").select_option("generated")
    page.wait_for_url("**positions=generated*")
    page.reload()
    page.wait_for_selector(".steered-latent")
    assert page.get_by_label("Strength", exact=True).input_value() == "2.5"
    assert "evil" in page.get_by_label("Prompt").input_value()
    page.get_by_role("button", name="Remove").click()
    page.wait_for_selector(".steered-latent", state="detached")


@pytest.mark.browser
def test_a_text_can_be_stopped(visit: Callable[..., Page], client: TestClient, busiest: int) -> None:
    page = visit(f"/runs/small/steer?prompt=She+pulls&steer={busiest}&n_tokens=400&temperature=1")
    page.get_by_role("button", name="Write", exact=True).click()
    page.wait_for_selector(".side-baseline .token")
    stop = page.get_by_role("button", name="Stop", exact=True)
    if stop.is_enabled():
        stop.click()
    page.wait_for_selector(".outcome[data-done]")
    assert page.get_by_role("button", name="Write", exact=True).is_enabled()
    assert steer(client, {"latent": busiest, "mode": "ablate"}), "the model is free again"


def test_a_coder_that_writes_elsewhere_says_so(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "small", tmp_path / "small")
    path = tmp_path / "small" / "coder" / "config.toml"
    text = path.read_text()
    at = text.index("layers.1.resid_post", text.index("writes = ["))
    path.write_text(text[:at] + "layers.1.mlp_out" + text[at + len("layers.1.resid_post") :])
    client = TestClient(create_app(tmp_path), base_url=ADDRESS)
    page = client.get("/runs/small/steer.json").json()
    assert "reads layers.1.resid_post and writes layers.1.mlp_out" in page["problem"]
    answer = client.post("/runs/small/steer", json={"prompt": PROMPT, "latents": [{"latent": 7}]})
    assert answer.status_code == 400 and "a transcoder" in answer.json()["error"]
