"""What results.json and suites.json hold is checked when it is read, and comes back as it was written."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from unweave.errors import UserError
from unweave.storage.results import (
    Basis,
    Bins,
    Distributions,
    Floor,
    Results,
    SuiteFigures,
    read_results,
    read_suites,
    schema,
    write_results,
    write_suites,
)

RESULTS = Results(
    figures={"l0": 7.25, "kl": None},
    standard_errors={"l0": 0.5},
    basis={"l0": Basis(version=1, n_tokens=63, n_documents=3), "kl": Basis(version=2, n_tokens=7, n_documents=1)},
    floors={"pca": Floor(figures={"l0": 7.0}, standard_errors={}, n_tokens=7, n_documents=1)},
    seeds={"training": 5},
    distributions=Distributions(tokens_by_l0=[0, 3, 60], latents_by_density=Bins(edges=[0.0, 1.0], counts=[100])),
    n_tokens=63,
    n_documents=3,
    n_latents=100,
    d_model=24,
    measured_with={"text": "a.txt", "tokens": 63, "share": 0.5, "chat": False},
)


def test_results_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_results(tmp_path, RESULTS)
    assert read_results(tmp_path) == RESULTS


def test_a_flat_view_has_figures_beside_all_else_as_plain_values() -> None:
    flat = RESULTS.flat()
    assert flat["l0"] == 7.25 and math.isnan(flat["kl"])
    assert flat["floors"]["pca"]["figures"]["l0"] == 7.0
    assert flat["basis"]["kl"] == {"version": 2, "n_tokens": 7, "n_documents": 1}
    assert "figures" not in flat


def test_a_figure_without_a_meaning_is_null(tmp_path: Path) -> None:
    write_results(tmp_path, replace(RESULTS, standard_errors={"l0": math.nan}))
    assert json.loads((tmp_path / "results.json").read_text())["standard_errors"] == {"l0": None}
    assert read_results(tmp_path).standard_errors == {"l0": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_tokens": "many"}, "valid integer.* at 'n_tokens'"),
        ({"figures": {"l0": "high"}}, "valid number.* at 'figures.l0'"),
        ({"floor": {}}, "at 'floor'"),
        ({"basis": {"l0": {"version": 1}}}, "at 'basis.l0.n_tokens'"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(change: dict, message: str, tmp_path: Path) -> None:
    write_results(tmp_path, RESULTS)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        read_results(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"l0": 7.25, "n_tokens": 63}'])
def test_a_damaged_or_older_file_is_an_error_that_says_what_to_do(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match=r"damaged, or of another version .*`unweave evaluate` on the run measures it"):
        read_results(tmp_path)


def test_a_run_that_was_not_measured_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no results.json; `unweave evaluate`"):
        read_results(tmp_path)
    assert read_suites(tmp_path) == {}


def test_suites_come_back_and_older_ones_without_versions_are_read(tmp_path: Path) -> None:
    its = SuiteFigures(
        figures={"tpp_2": 0.25},
        standard_errors={},
        n=100,
        details={"piece/tpp_2": 0.25},
        definition_versions={"tpp_2": 1},
        seeds={"suite": 0},
    )
    write_suites(tmp_path, {"tpp": {"demo": its}})
    assert read_suites(tmp_path) == {"tpp": {"demo": its}}
    older = {"figures": {"tpp_2": None}, "standard_errors": {}, "n": 100, "details": {}}
    (tmp_path / "suites.json").write_text(json.dumps({"tpp": {"demo": older}}))
    read = read_suites(tmp_path)["tpp"]["demo"]
    assert read.figures == {"tpp_2": None} and read.definition_versions == {}


def test_the_schema_describes_every_field() -> None:
    made = schema(Results, "results.json")
    assert made["title"] == "results.json" and made["additionalProperties"] is False
    every = [made, *made["$defs"].values()]
    assert len(every) == 5
    for kind in every:
        assert kind["description"].endswith(".")
        assert all(its["description"].endswith(".") for its in kind["properties"].values())
