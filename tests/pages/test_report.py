"""The report folder holds everything once, and nothing in it can harm or call out."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from unweave.pages.report import ReportData, report_files

from .conftest import HOSTILE, N_LATENTS, N_TOKENS, VOCABULARY


def payload(files: dict[str, str], name: str) -> Any:
    """What a data script hands over, read as strict JSON."""
    text = files[f"data/{name}.js"]
    head, tail = f'unweave.receive("{name}",', ");\n"
    assert text.startswith(head) and text.endswith(tail)
    return json.loads(text[len(head) : -len(tail)], parse_constant=pytest.fail)


def ours(files: dict[str, str]) -> dict[str, str]:
    return {path: text for path, text in files.items() if path != "assets/plotly.min.js"}


class References(HTMLParser):
    """Collects the addresses that a page loads or links to, and its event handlers."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def test_every_latent_is_in_exactly_one_chunk(files: dict[str, str]) -> None:
    seen = []
    for path in files:
        if match := re.fullmatch(r"data/(latents-\d+)\.js", path):
            chunk = payload(files, match[1])
            seen += range(chunk["first"], chunk["first"] + len(chunk["latents"]))
    assert sorted(seen) == list(range(N_LATENTS))


def test_a_latent_can_be_put_together_again_from_its_chunk(files: dict[str, str], report_data: ReportData) -> None:
    texts = payload(files, "tokens")["texts"]
    latent = payload(files, "latents-0001")["latents"][300 - 256]
    record = report_data.records[300]
    assert [
        (
            [texts[place] for place in example["tokens"]],
            example["activations"],
            example["peak"],
            example["document"],
        )
        for example in latent["examples"]
    ] == [([VOCABULARY[i] for i in e.token_ids], e.activations, e.peak, e.document) for e in record.examples]
    assert [(texts[place], weight) for place, weight in latent["promoted"]] == [
        (VOCABULARY[w.token_id], pytest.approx(w.weight)) for w in record.promoted
    ]
    assert len(latent["suppressed"]) == len(record.suppressed)


def test_the_index_has_every_column_for_every_latent(files: dict[str, str]) -> None:
    index = payload(files, "latents")
    assert index["n_latents"] == N_LATENTS
    assert index["n_tokens"] == N_TOKENS
    for column in ("n_fires", "density", "max", "mean", "peaks", "promoted"):
        assert len(index[column]) == N_LATENTS, column
    texts = payload(files, "tokens")["texts"]
    assert index["n_fires"][7] == 0 and index["peaks"][7] == []
    assert [texts[place] for place in index["peaks"][100]] == [VOCABULARY[100]]


def test_token_ids_of_the_table_are_those_of_the_tokenizer(files: dict[str, str]) -> None:
    table = payload(files, "tokens")
    assert len(set(table["ids"])) == len(table["ids"])
    assert table["texts"] == [VOCABULARY[i] for i in table["ids"]]


def test_hostile_text_never_appears_raw(files: dict[str, str]) -> None:
    assert HOSTILE in payload(files, "tokens")["texts"]
    for path, text in ours(files).items():
        assert "<img src=x" not in text, path
        assert "\u2028" not in text and "\u202e" not in text, path
        if path.startswith("data/"):
            assert "<" not in text and text.isascii(), path


def test_pages_have_no_inline_scripts_or_handlers(files: dict[str, str]) -> None:
    for page in ("index.html", "latents.html"):
        references = References()
        references.feed(files[page])
        assert references.handlers == []
        assert not re.search(r"<script(?![^>]*\bsrc=)", files[page])


def test_scripts_insert_text_only_as_text(files: dict[str, str]) -> None:
    for path, text in ours(files).items():
        if path.startswith("assets/") and path.endswith(".js"):
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(", text), (
                path
            )


def test_nothing_is_loaded_from_a_network(files: dict[str, str]) -> None:
    for path, text in files.items():
        if path.endswith((".html", ".css")) or (path.startswith("assets/") and path != "assets/plotly.min.js"):
            without_names = text.replace('xmlns="http://www.w3.org/2000/svg"', "")
            assert not re.search(r"https?:|//[a-z]+\.[a-z]|@import|url\(", without_names), path


def test_every_file_that_a_page_names_is_in_the_folder(files: dict[str, str]) -> None:
    for page in ("index.html", "latents.html"):
        references = References()
        references.feed(files[page])
        for address in references.addresses:
            assert address.startswith("#") or address.partition("#")[0] in files, address


def test_figures_that_are_not_numbers_are_said_to_be_undefined(files: dict[str, str]) -> None:
    assert "undefined" in files["index.html"]
    assert not re.search(r">\s*-?(nan|inf)\b", files["index.html"], re.IGNORECASE)
    mean = payload(files, "latents")["mean"]
    assert mean[8] is None and mean[9] == 1
    panels = {panel["name"]: panel["values"] for panel in payload(files, "report")["curves"]["panels"]}
    assert panels["mse"][3] is None and panels["explained_variance"][4] is None


def test_the_first_page_shows_facts_findings_and_figures(files: dict[str, str]) -> None:
    page = files["index.html"]
    for text in (
        "layers.2.resid_post",
        "Try &amp; see.",
        "Problem",
        "All is well",
        "Explained variance",
        "50 %",
        "1,234,567",
    ):
        assert text in page, text


def test_a_report_of_nothing_is_still_a_report(report_data: ReportData) -> None:
    empty = replace(report_data, results={}, curve=[], records=[], findings=[], facts={})
    files = report_files(empty)
    assert payload(files, "latents")["n_latents"] == 0
    assert payload(files, "report")["curves"]["panels"] == []


def test_a_site_that_does_not_write_to_the_stream_has_no_token_weights(report_data: ReportData) -> None:
    records = [replace(record, promoted=[], suppressed=[]) for record in report_data.records]
    files = report_files(replace(report_data, records=records))
    assert payload(files, "latents")["promoted"] == [[]] * N_LATENTS
