"""The section *Measured* of a report: what is on an axis, what is escaped, and what a browser draws of it."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import CHROMIUM
from unweave.formats.files import write_texts
from unweave.metrics import CORE, Definition, definitions, metric_name
from unweave.pages.measured import GROUPS, Measurement, l0_histogram, measured_section, measurement
from unweave.pages.report import ReportData, report_files
from unweave.storage.results import Basis, Bins, Distributions, Floor, Results, SuiteFigures

from .conftest import HOSTILE
from .test_browser import visit


@pytest.fixture
def results() -> Results:
    figures: dict[str, float | None] = {**dict.fromkeys(definitions(), 0.5), "kl": None, "explained_variance": 0.75}
    floor = Floor(figures={**figures, "explained_variance": 0.25}, standard_errors={}, n_tokens=63, n_documents=2)
    return Results(
        figures=figures,
        standard_errors={"explained_variance": 0.125},
        basis=dict.fromkeys(figures, Basis(version=1, n_tokens=700, n_documents=7)),
        floors={"identity": replace(floor, figures={**figures, "explained_variance": 1.0}), "random": floor},
        seeds={"training": 3},
        distributions=Distributions(
            tokens_by_l0=[0] * 100 + [1] * 121, latents_by_density=Bins(edges=[-1.0, 0.0], counts=[7])
        ),
        n_tokens=700,
        n_documents=7,
        n_latents=63,
        d_model=7,
        measured_with={"text": HOSTILE, "tokens": 700},
    )


@pytest.fixture
def measured(results: Results) -> Measurement:
    own = SuiteFigures(figures={"share": 0.5, HOSTILE: 7.0}, standard_errors={}, n=63, details={})
    known = {"probing": {"share": Definition("share", "Share of all", "What it is.", "high")}}
    return measurement(results, {"probing": {"my run": own, "pca": replace(own, figures={"share": 0.25})}}, known)


def test_every_metric_has_a_heading() -> None:
    assert set(GROUPS) == {metric_name(metric) for metric in CORE}


def test_floors_come_in_one_order_and_are_explained(measured: Measurement) -> None:
    assert list(measured.floors) == ["random", "pca", "identity"]
    assert list(measured.groups[0].figures[0].floors) == ["random", "identity"]
    assert measured.floor_tokens == 63


def test_marks_and_whiskers_lie_at_their_share_of_the_axis(measured: Measurement) -> None:
    one = measured.groups[0].figures[0]
    # from 0.25 to 1, with a margin of 4 % of that on either side
    assert (one.low, one.high) == pytest.approx((0.22, 1.03))
    row = next(line for line in measured_section(measured).splitlines() if 'data-name="explained_variance"' in line)
    assert f'class="dot own" style="left:{100 * 0.53 / 0.81:.2f}%"' in row
    assert f'class="whisker own" style="left:{100 * 0.405 / 0.81:.2f}%;width:{100 * 0.25 / 0.81:.2f}%"' in row
    assert f'class="dot identity" style="left:{100 * 0.78 / 0.81:.2f}%"' in row
    assert "Measured on 700 tokens of 7 documents." in row


def test_a_figure_without_a_meaning_has_no_mark(measured: Measurement) -> None:
    row = next(line for line in measured_section(measured).splitlines() if 'data-name="kl"' in line)
    assert "undefined" in row and "dot own" not in row


def test_suites_are_shown_with_what_is_known_of_them(measured: Measurement) -> None:
    section = measured_section(measured)
    assert "Share of all" in section and "Measured on 63 examples." in section
    assert "<img src=x" not in section and "&lt;img src=x" in section


@pytest.mark.parametrize(("n", "step"), [(60, 1), (61, 2), (121, 3)])
def test_tokens_by_l0_are_joined_into_at_most_60_bins(measured: Measurement, n: int, step: int) -> None:
    found = l0_histogram(replace(measured, tokens_by_l0=[0] * 100 + [1] * n + [0] * 7))
    assert (found["start"], found["step"], sum(found["counts"])) == (100, step, n)
    assert len(found["counts"]) == math.ceil(n / step) <= 60


def test_a_report_without_a_measurement_has_no_such_section(report_data: ReportData, measured: Measurement) -> None:
    assert 'id="measured"' not in dict(report_files(report_data))["index.html"]
    assert 'id="measured"' in dict(report_files(replace(report_data, measured=measured)))["index.html"]


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH; apt-get install chromium")
def test_the_report_draws_the_histogram_of_l0(report_data: ReportData, measured: Measurement, tmp_path: Path) -> None:
    write_texts(tmp_path / "report", report_files(replace(report_data, measured=measured)))
    dom, console, requests = visit(tmp_path / "report" / "index.html", tmp_path / "profile")
    assert console == [] and requests == []
    (plot,) = re.findall(r'id="l0-plot"><div class="([^"]*)"[^>]*aria-label="([^"]*)"', dom)
    assert plot == ("plot js-plotly-plot", "Tokens by active latents, from 100 to 222")
