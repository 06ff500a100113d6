"""A report with everything that is hard to show: hostile tokens, dead latents, figures that are not numbers."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from unweave.analysis.doctor import Finding
from unweave.formats.files import write_texts
from unweave.latent_record import Example, LatentRecord, TokenWeight
from unweave.metrics import definitions
from unweave.pages.latent_pages import ShownLatents
from unweave.pages.report import ReportData, report_files
from unweave.storage.run_facts import RunFacts

N_LATENTS = 613
N_TOKENS = 100_000
HOSTILE = "</script><img src=x onerror=alert(63)><!--"
SPECIAL = [
    HOSTILE,
    "\n",
    "\t\t",
    " ",
    "",
    "\u2028\u2029",
    "\u202eevil",
    "naïve",
    "`${alert(7)}`",
    '"\\',
    "\ufffd",
    "x" * 300,
]
VOCABULARY = SPECIAL + [f" word{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(100)]


@pytest.fixture(scope="session")
def report_data() -> ReportData:
    curve = [_line(step) for step in range(0, 63, 7)]
    curve[3]["mse"] = math.inf
    curve[4]["explained_variance"] = math.nan
    figures = dict.fromkeys(definitions(), 0.5) | {"kl": math.nan, "loss_recovered_zero": -math.inf}
    return ReportData(
        name=f"run {HOSTILE}",
        facts={"Model": HOSTILE, "Site": "layers.2.resid_post"},
        results=figures | {"n_things": 1234567.0},
        standard_errors={"l0": 0.25, "kl": math.nan},
        definitions=definitions(),
        curve=curve,
        latents=ShownLatents(
            facts=RunFacts(name="run-x", path=f"run {HOSTILE}", model=HOSTILE, problem=HOSTILE, index="ready"),
            n_tokens=N_TOKENS,
            latents=range(N_LATENTS),
            records=[_record(latent) for latent in range(N_LATENTS)],
            vocabulary=VOCABULARY,
        ),
        findings=[Finding("problem", HOSTILE, "Try & see."), Finding("good", "All is well", "Go on.")],
    )


@pytest.fixture(scope="session")
def files(report_data: ReportData) -> dict[str, str]:
    return dict(report_files(report_data))


@pytest.fixture(scope="session")
def report(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the report."""
    folder = tmp_path_factory.mktemp("pages") / "report"
    write_texts(folder, files.items())
    return folder


@pytest.fixture
def look(browser: Browser, report: Path) -> Iterator[Callable[..., Page]]:
    """Opens a file with the network off; at the end no page has complained or asked for anything beyond its folder."""
    contexts, said, astray = [], [], []

    def look(address: str, folder: Path = report, **settings: Any) -> Page:
        context = browser.new_context(offline=True, **settings)
        contexts.append(context)
        home = f"{folder.as_uri()}/"
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(home) else astray.append(request.url))
        page.goto(home + address)
        page.wait_for_selector("body[data-drawn]")
        return page

    yield look
    for context in contexts:
        context.close()
    assert said == [] and astray == []


def _line(step: int) -> dict[str, float | int]:
    n = step + 1
    line = {
        "step": step,
        "rows": 100 * n,
        "seconds": 0.1 * step,
        "lr": 1e-3,
        "mse": 1 / n,
        "l0": 7.0,
        "dead_share": 0.0,
    }
    return line | {"explained_variance": 1 - 1 / n} | ({"aux": 0.01} if step > 20 else {})


def _record(latent: int) -> LatentRecord:
    """Every seventh latent is dead; the others fire on one token, in steps of density from rare to dense."""
    weights = [TokenWeight((latent + i) % len(VOCABULARY), 1.0 - 0.1 * i) for i in range(7)]
    negative = [TokenWeight(w.token_id, -w.weight) for w in weights]
    if latent % 7 == 0:
        return LatentRecord(latent, 0.0, 0, 0.0, 0.0, [], weights, negative)
    token = latent % len(VOCABULARY)
    n_fires = 1 + latent**2 // 10
    examples = [
        Example([1, 0, token, 3, 12 + i], [0.0, 0.25, 2.0 + latent - i, 0.0, 0.0], 2, f"document {i} {HOSTILE}")
        for i in range(min(5, n_fires))
    ]
    mean = math.nan if latent == 8 else 1.0
    return LatentRecord(latent, n_fires / N_TOKENS, n_fires, 2.0 + latent, mean, examples, weights, negative)
