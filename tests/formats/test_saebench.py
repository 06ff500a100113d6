"""SAEBench's result files: written field by field as theirs, and read into our figures."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from unweave.errors import UserError
from unweave.evals import absorption, probing, scr, tpp
from unweave.formats.saebench import EVALUATIONS, Found, Stamp, read_saebench, spreads, tasks_apart, to_saebench
from unweave.metrics import definitions

REAL = Path(__file__).parents[3] / "shared" / "realdata" / "saebench-results"
STAMP = Stamp(name="demo", version="0.0", eval_id="1-2-3", milliseconds=1_700_000_000_000, config={"d_in": 24})
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the published result files are not here")
FIGURES = {
    "core": sorted(definitions()),
    "probing": [definition.name for definition in probing.definitions()],
    "tpp": [definition.name for definition in tpp.definitions()],
    "scr": [definition.name for definition in scr.definitions()],
    "absorption": [definition.name for definition in absorption.DEFINITIONS],
}
NOT_THEIRS = {"absorption_latent_f1", "absorption_row_f1", "absorption_classes"}


def _found(suite: str) -> Found:
    """Every figure of a suite with a value of its own."""
    figures = {name: 0.01 * (i + 1) for i, name in enumerate(FIGURES[suite])}
    return Found(figures=figures, standard_errors={name: value / 7 for name, value in figures.items()})


def _written(suite: str, found: Found, folder: Path) -> Path:
    path = folder / f"{suite}.json"
    path.write_text(json.dumps(to_saebench(suite, found, STAMP)))
    return path


@pytest.mark.parametrize("suite", EVALUATIONS)
def test_figures_come_back_as_they_were_written(suite: str, tmp_path: Path) -> None:
    found = _found(suite)
    read = read_saebench(_written(suite, found, tmp_path))
    assert (read.evaluation, read.sae) == (suite, "unweave_demo")
    assert read.figures == pytest.approx({name: found.figures[name] for name in read.figures})
    assert read.standard_errors == {name: found.standard_errors[name] for name in read.figures}
    if suite != "core":
        assert set(FIGURES[suite]) - set(read.figures) <= NOT_THEIRS
    else:
        assert {"explained_variance", "explained_variance_of_rows", "l0", "dead_share", "kl"} <= set(read.figures)
        assert "mse" not in read.figures, "it depends on the batch size there"


def test_what_was_not_measured_is_null(tmp_path: Path) -> None:
    values = to_saebench("core", Found(figures={"l0": 7.0, "kl": None}, standard_errors={}), STAMP)
    metrics = values["eval_result_metrics"]
    assert metrics["sparsity"] == {"l0": 7.0, "l1": None}
    assert metrics["model_behavior_preservation"]["kl_div_with_sae"] is None
    assert metrics["misc_metrics"]["frac_alive"] is None
    path = tmp_path / "core.json"
    path.write_text(json.dumps(values))
    assert read_saebench(path).figures == {"l0": 7.0}


def test_tasks_are_listed_one_by_one_with_the_mean_of_their_classes() -> None:
    details: dict[str, float | None] = {
        "hf:owner/news/sport/probe_k1": 0.5,
        "hf:owner/news/world/probe_k1": 0.75,
        "piece/code/probe_row": 1.0,
    }
    news, piece = tasks_apart("probing", details)
    assert news["dataset_name"] == "hf:owner/news_results" and news["sae_top_1_test_accuracy"] == 0.625
    assert news["llm_test_accuracy"] is None and piece["llm_test_accuracy"] == 1.0
    (of_tpp,) = tasks_apart("tpp", {"piece/tpp_2": 0.25, "piece/tpp_intended_2": 0.5})
    assert of_tpp["dataset_name"] == "piece_tpp_results"
    assert (of_tpp["tpp_threshold_2_total_metric"], of_tpp["tpp_threshold_2_intended_diff_only"]) == (0.25, 0.5)
    (of_scr,) = tasks_apart("scr", {"piece/scr_5": 0.25, "piece/biased": 0.5, "piece/oracle": 0.9})
    assert of_scr["scr_dir1_threshold_5"] == of_scr["scr_metric_threshold_5"] == 0.25
    assert of_scr["scr_dir2_threshold_5"] is None


def test_classes_of_absorption_are_listed_with_their_spread() -> None:
    details: dict[str, float | None] = {
        f"letters/{letter}/absorption_{name}": value
        for letter, full in (("a", 0.1), ("b", 0.4))
        for name, value in (("full", full), ("fraction", full / 2), ("split", 3.0 if letter == "a" else 1.0))
    }
    parts = tasks_apart("absorption", details)
    assert [part["first_letter"] for part in parts] == ["a", "b"]
    assert parts[0]["full_absorption_rate"] == 0.1 and parts[0]["num_split_features"] == 3
    assert spreads(parts)["std_dev_num_split_features"] == pytest.approx(math.sqrt(2))
    assert spreads(parts[:1])["std_dev_full_absorption_score"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is no result file"), ("[]", "is no result file"), ('{"eval_type_id": "core"}', "is no result file")],
)
def test_other_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_saebench(path)
    with pytest.raises(UserError, match="there is no file"):
        read_saebench(tmp_path / "none.json")


def _real(name: str) -> dict[str, Any]:
    return json.loads((REAL / f"{name}_expected_results.json").read_text())


@needs_real
@pytest.mark.parametrize("name", ["core", "sparse_probing", "tpp", "scr", "absorption"])
def test_our_files_have_every_field_of_the_published_ones(name: str) -> None:
    real = _real(name)
    suite = {theirs: ours for ours, theirs in EVALUATIONS.items()}[real["eval_type_id"]]
    ours = to_saebench(suite, _found(suite), STAMP)
    assert set(real) <= set(ours)
    for category, fields in real["eval_result_metrics"].items():
        assert set(fields) <= set(ours["eval_result_metrics"][category])
    details = {
        "core": {},
        "probing": {"a/b/probe_row": 1.0},
        "tpp": {"a/tpp_2": 0.5},
        "scr": {"a/scr_2": 0.5},
        "absorption": {"a/b/absorption_full": 0.5},
    }
    for part in tasks_apart(suite, details[suite]) if suite != "core" else ():
        assert set(part) == set(real["eval_result_details"][0])


@needs_real
def test_published_core_figures_are_read_under_the_names_that_they_have_here() -> None:
    read, metrics = read_saebench(REAL / "core_expected_results.json"), _real("core")["eval_result_metrics"]
    assert read.model == "pythia-70m-deduped" and read.evaluation == "core"
    assert read.figures["l0"] == metrics["sparsity"]["l0"]
    assert read.figures["ce_spliced"] == metrics["model_performance_preservation"]["ce_loss_with_sae"]
    before = metrics["reconstruction_quality"]["explained_variance"]
    assert read.figures["explained_variance_of_rows"] == before, "this file is of before version 0.4"
    assert not {"explained_variance", "kl", "mse", "dead_share"} & set(read.figures), "KL is -1 there: not measured"
    clean, zero = read.figures["ce_clean"], read.figures["ce_zero_ablated"]
    recovered = (zero - read.figures["ce_spliced"]) / (zero - clean)
    assert read.figures["loss_recovered_zero"] == pytest.approx(recovered, rel=1e-6)


@needs_real
def test_published_suites_are_read_under_the_names_that_they_have_here() -> None:
    probed = read_saebench(REAL / "sparse_probing_expected_results.json").figures
    assert probed["probe_k1"] == _real("sparse_probing")["eval_result_metrics"]["sae"]["sae_top_1_test_accuracy"]
    assert probed["probe_row"] > probed["probe_row_k5"] > 0.5
    perturbed = read_saebench(REAL / "tpp_expected_results.json").figures
    assert perturbed["tpp_10"] == pytest.approx(perturbed["tpp_intended_10"] - perturbed["tpp_unintended_10"])
    assert set(read_saebench(REAL / "scr_expected_results.json").figures) == {"scr_10"}
    absorbed = read_saebench(REAL / "absorption_expected_results.json").figures
    assert set(absorbed) == set(FIGURES["absorption"]) - NOT_THEIRS


@needs_real
@pytest.mark.parametrize("name", ["ravel", "mdl", "autointerp"])
def test_evaluations_that_are_not_ours_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="SAEBench"):
        read_saebench(REAL / f"{name}_expected_results.json")
