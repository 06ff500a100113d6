"""The report folder holds everything once, and nothing in it can harm or call out."""

import base64
import json
import re
import weakref
import zlib
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from pydantic import TypeAdapter

from unweave.latent_record import LatentRecord
from unweave.pages.latent_pages import CHUNK, address_names
from unweave.pages.report import ReportData, report_files

from .conftest import HOSTILE, N_LATENTS, N_TOKENS, VOCABULARY

PAGES = ("index.html", "latents.html", "latent.html")


def payload(files: dict[str, str], name: str) -> Any:
    """What a data script hands over, read as strict JSON."""
    text = files[f"data/{name}.js"]
    head, tail = f'unweave.receive("{name}",', ");\n"
    assert text.startswith(head) and text.endswith(tail)
    return json.loads(text[len(head) : -len(tail)], parse_constant=pytest.fail)


def unpacked(files: dict[str, str], name: str) -> Any:
    """What a deflated data script of the run hands over."""
    packed = payload(files, f"run-x/{name}")["deflated"]
    return json.loads(zlib.decompress(base64.b64decode(packed)), parse_constant=pytest.fail)


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
        if match := re.fullmatch(r"data/run-x/(latents-\d+)\.js", path):
            seen += [latent["latent"] for latent in unpacked(files, match[1])]
    assert seen == list(range(N_LATENTS))


def test_a_latent_can_be_put_together_again_from_its_chunk(files: dict[str, str], report_data: ReportData) -> None:
    records = list(report_data.latents.records)
    chunk = unpacked(files, f"latents-{300 // CHUNK:04d}")
    assert TypeAdapter(LatentRecord).validate_python(chunk[300 % CHUNK]) == records[300]


def test_the_table_has_every_column_for_every_latent(files: dict[str, str]) -> None:
    table = unpacked(files, "table")
    assert table["about"] == {"n_latents": N_LATENTS, "n_tokens": N_TOKENS}
    assert all(len(values) == N_LATENTS for values in table["columns"].values())
    columns = table["columns"]
    assert columns["latent"] == list(range(N_LATENTS))
    assert columns["n_fires"][7] == 0 and columns["peaks"][7] == []
    assert columns["peaks"][100] == [VOCABULARY[100]]


def test_texts_are_those_of_the_tokenizer(files: dict[str, str]) -> None:
    texts = unpacked(files, "tokens")
    assert set(map(int, texts)) <= set(range(len(VOCABULARY)))
    assert all(text == VOCABULARY[int(token)] for token, text in texts.items())
    shown = payload(files, "report")["texts"]
    assert shown and all(text == VOCABULARY[int(token)] for token, text in shown.items())


def test_records_are_asked_for_one_by_one(report_data: ReportData) -> None:
    alive: list[weakref.ref] = []
    most = 0

    def passing() -> Iterator[LatentRecord]:
        nonlocal most
        for record in report_data.latents.records:
            copy = replace(record)
            alive.append(weakref.ref(copy))
            yield copy
            del copy
            most = max(most, sum(one() is not None for one in alive))

    latents = replace(report_data.latents, records=passing())
    assert sum(len(text) for _, text in report_files(replace(report_data, latents=latents))) > 0
    assert len(alive) == N_LATENTS and most < 3 * CHUNK


def test_hostile_text_never_appears_raw(files: dict[str, str]) -> None:
    assert HOSTILE in unpacked(files, "tokens").values() and HOSTILE in payload(files, "report")["texts"].values()
    for path, text in ours(files).items():
        assert "<img src=x" not in text, path
        assert "\u2028" not in text and "\u202e" not in text, path
        if path.startswith("data/"):
            assert "<" not in text and text.isascii(), path


def test_pages_have_no_inline_scripts_or_handlers(files: dict[str, str]) -> None:
    for page in PAGES:
        references = References()
        references.feed(files[page])
        assert references.handlers == []
        assert not re.search(r"<script(?![^>]*\bsrc=)", files[page])


def test_pages_may_run_scripts_of_their_folder_only(files: dict[str, str]) -> None:
    for page in PAGES:
        (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', files[page])
        assert policy.split("; ") == [
            "default-src 'none'",
            "script-src 'self' file:",
            "style-src 'self' file: 'unsafe-inline'",
            "img-src 'self' file: data: blob:",
        ]
        assert files[page].index("Content-Security-Policy") < files[page].index("<script")


def test_scripts_insert_text_only_as_text(files: dict[str, str]) -> None:
    for path, text in ours(files).items():
        if path.startswith("assets/") and path.endswith(".js"):
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(", text), (
                path
            )


def test_nothing_is_loaded_from_a_network(files: dict[str, str]) -> None:
    for path, text in files.items():
        if path.endswith((".html", ".css")) or (path.startswith("assets/") and path != "assets/plotly.min.js"):
            without_names = text.replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?:|//[a-z]+\.[a-z]|@import|url\(", without_names), path


def test_every_file_that_a_page_names_is_in_the_folder(files: dict[str, str]) -> None:
    for page in PAGES:
        references = References()
        references.feed(files[page])
        for address in references.addresses:
            assert address in files, address
    assert "assets/plotly.min.js" in files["index.html"] and "assets/plotly.min.js" in files


def test_figures_that_are_not_numbers_are_said_to_be_undefined(files: dict[str, str]) -> None:
    assert "undefined" in files["index.html"]
    assert not re.search(r">\s*-?(nan|inf)\b", files["index.html"], re.IGNORECASE)
    mean = unpacked(files, "table")["columns"]["mean"]
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
    latents = replace(report_data.latents, n_tokens=0, latents=[], records=[])
    empty = replace(report_data, results={}, curve=[], latents=latents, findings=[], facts={})
    files = dict(report_files(empty))
    assert unpacked(files, "table")["columns"]["latent"] == []
    assert payload(files, "report")["curves"]["panels"] == []


def test_a_site_that_does_not_write_to_the_stream_has_no_token_weights(report_data: ReportData) -> None:
    records = [replace(record, promoted=[], suppressed=[]) for record in report_data.latents.records]
    files = dict(report_files(replace(report_data, latents=replace(report_data.latents, records=records))))
    assert unpacked(files, "table")["columns"]["promoted"] == [[]] * N_LATENTS


def test_a_run_gets_a_name_that_a_folder_can_have() -> None:
    names = ["demo", "Demo", "a/b ü", "..", f"run {HOSTILE}", "demo-2"]
    assert address_names(names) == ["demo", "Demo-2", "a-b", "run", "run-script-img-src-x-onerror-alert-63", "demo-2-2"]
