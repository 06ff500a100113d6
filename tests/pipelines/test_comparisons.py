"""Two coders measured against each other: with themselves, with chance, and what cannot be compared in one line."""

import json
import math
from pathlib import Path

import pytest
import torch

from unweave.coders import Origin, Port, SparseCoder, Wiring
from unweave.coders.topk import TopK, TopKConfig
from unweave.errors import UserError
from unweave.formats.native import write_coder
from unweave.pipelines.comparisons import COMPARISONS, Comparison, compare_by, write_comparisons
from unweave.pipelines.progress import Watch
from unweave.pipelines.two_coders import two_coders
from unweave.storage.run_folder import Run

QUIET = Watch(quiet=True)
SMALL = ("evaluation.tokens=500", "evaluation.splice_tokens=600")


def written(folder: Path, model: str, wiring: Wiring, *, n_latents: int = 40, like: SparseCoder | None = None) -> str:
    """A coder in a folder that is no run; the first latents may be those of another."""
    coder = TopK(TopKConfig(n_latents=n_latents, k=5), wiring)
    if like is not None:
        with torch.no_grad():
            for name in ("W_enc", "W_dec", "b_enc"):
                getattr(coder, name)[: like.n_latents] = getattr(like, name)[:n_latents]
            coder.b_dec.copy_(like.b_dec)
    coder.origin = Origin(model)
    write_coder(folder, coder)
    return str(folder)


@pytest.fixture(scope="module")
def model(run: Run) -> str:
    assert run.coder.origin is not None
    return run.coder.origin.model


@pytest.fixture(scope="module")
def wider(run: Run, model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """All latents of the run's coder, and as many again."""
    folder = tmp_path_factory.mktemp("coders") / "wider"
    return written(folder, model, run.coder.wiring, n_latents=126, like=run.coder)


def compared(run: Run, other: str, *names: str, draws: int = 3) -> dict[str, Comparison]:
    return compare_by(two_coders(str(run.path), other, QUIET, overrides=SMALL), names, draws=draws)


def figures(comparison: Comparison) -> dict[str, float]:
    return {figure.name: figure.value for figure in comparison.figures}


def test_a_coder_is_matched_with_itself_far_above_chance(run: Run) -> None:
    found = compared(run, str(run.path), "matching")["matching"]
    assert figures(found)["mmcs"] == figures(found)["mcc_of_coders"] == pytest.approx(1.0, abs=1e-5)
    assert "100% of one number" in found.note
    by_name = {figure.name: figure for figure in found.figures}
    for name in ("mmcs", "mcc_of_coders"):
        chance = by_name[name].chance
        assert chance is not None and chance < 0.9 and by_name[name].p == 0.25, (
            "one of three draws and the coder itself"
        )
    assert found.details["pairs"]["first"] == found.details["pairs"]["second"] == list(range(63))


def test_latents_are_found_again_in_a_wider_coder_by_direction_and_by_firing(run: Run, wider: str) -> None:
    found = compared(run, wider, "matching", "correlation", "similarity")
    assert found["matching"].details["pairs"]["second"][:63] == list(range(63))
    correlation = {figure.name: figure for figure in found["correlation"].figures}["correlation_best"]
    assert correlation.chance is not None and correlation.value > correlation.chance + 0.2
    assert {figure.name for figure in found["similarity"].figures} == {"cka", "svcca", "rsa"}


def test_stitching_and_swap_go_from_the_smaller_coder_to_the_larger(run: Run, wider: str) -> None:
    settings = ("evaluation.tokens=800", "evaluation.splice_tokens=800")
    found = compare_by(two_coders(wider, str(run.path), QUIET, overrides=settings), ["stitching", "swap"])
    stitched = {figure.name: figure for figure in found["stitching"].figures}
    assert found["stitching"].note.startswith(f"{wider} has ")
    assert 0 <= stitched["stitched_novel_share"].value <= 1
    assert len(found["stitching"].details["delta"]) == 126
    for name in ("stitched_ce_novel", "stitched_kl_reconstruction", "stitched_novel_share"):
        assert (stitched[name].error or 0.0) > 0
    path = found["swap"].details
    assert len(path["mse"]) == 21 and figures(found["swap"])["swap_gain"] == pytest.approx(
        1 - path["mse"][-1] / path["mse"][0]
    )


def test_transfer_maps_to_the_other_site(run: Run, model: str, tmp_path: Path) -> None:
    other = written(tmp_path / "below", model, Wiring.sae(24, "layers.0.resid_post"))
    found = compared(run, other, "transfer", "matching")
    assert found["transfer"].note.endswith(f"at layers.0.resid_post, where {other} reads")
    known = figures(found["transfer"])
    assert known["transfer_home"] == pytest.approx(run.results["explained_variance"], abs=0.1)
    assert known["transfer_mapped"] < known["transfer_map_only"] <= 1


def test_coders_without_a_run_are_given_the_text_that_is_asked_for(model: str, text_file: Path, tmp_path: Path) -> None:
    one, other = (written(tmp_path / name, model, Wiring.sae(24, "layers.1.resid_post")) for name in ("one", "other"))
    settings = (*SMALL, f"text.source={text_file}", "packing.context=32", "model.device=cpu")
    found = compare_by(two_coders(one, other, QUIET, overrides=settings), ["correlation"])
    assert found["correlation"].note.endswith("tokens that both have read")
    with pytest.raises(UserError, match=r"'training.rows=5' is no setting of a comparison"):
        compare_by(two_coders(one, other, QUIET, overrides=["training.rows=5"]), ["correlation"])


def test_what_was_found_is_written_as_json(run: Run, tmp_path: Path) -> None:
    two = two_coders(str(run.path), str(run.path), QUIET)
    write_comparisons(tmp_path / "found.json", two, compare_by(two, ["matching"], draws=1))
    told = json.loads((tmp_path / "found.json").read_text())
    assert told["first"] == told["second"] == str(run.path)
    assert told["comparisons"]["matching"]["figures"]["mmcs"]["value"] == pytest.approx(1.0, abs=1e-5)
    assert set(told["comparisons"]["matching"]["figures"]["mmcs"]) == {"value", "chance", "p"}


def test_coders_of_other_widths_and_models_are_refused_before_anything_is_measured(
    run: Run, model: str, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    narrow = written(tmp_path / "narrow", model, Wiring.sae(50, "layers.1.mlp.post"))
    elsewhere = written(tmp_path / "elsewhere", str(model_folders["gpt2"]), Wiring.sae(28, "layers.1.resid_post"))
    with pytest.raises(UserError, match=r"one space, got coders of widths 24 and 50; compare them by correlation"):
        compared(run, narrow, "matching")
    with pytest.raises(UserError, match=r"one space, got coders of two models"):
        compared(run, elsewhere, "matching")
    for name in ("stitching", "swap"):
        with pytest.raises(UserError, match=r"one site of one model, got layers.1.resid_post \[24\] and layers.1.mlp"):
            compared(run, narrow, name)
    with pytest.raises(UserError, match="transfer is to another site or model, and both coders read"):
        compared(run, str(run.path), "matching", "transfer")
    port = Port("layers.1.resid_post", 24)
    assert compared(run, narrow, "correlation") and port in run.coder.wiring.reads


def test_another_model_with_the_same_tokens_is_read_too(
    run: Run, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    other = written(tmp_path / "gpt2", str(model_folders["gpt2"]), Wiring.sae(28, "layers.1.resid_post"))
    found = compared(run, other, "transfer")["transfer"]
    assert math.isnan(figures(found)["transfer_as_is"]), "widths differ"
    assert figures(found)["transfer_l0_home"] > 0


def test_a_model_with_other_tokens_has_no_rows_to_pair(run: Run, tmp_path: Path) -> None:
    other = written(tmp_path / "pylm", "builtin:pylm", Wiring.sae(256, "layers.1.resid_post"))
    with pytest.raises(UserError, match="have other tokens, so their rows cannot be paired"):
        compared(run, other, "correlation")


def test_names_and_draws_are_checked(run: Run) -> None:
    two = two_coders(str(run.path), str(run.path), QUIET)
    with pytest.raises(UserError, match="unknown comparison 'matchin'; did you mean 'matching'"):
        compare_by(two, ["matchin"])
    with pytest.raises(UserError, match=f"give --suite some of {', '.join(COMPARISONS)}"):
        compare_by(two, [])
    with pytest.raises(UserError, match="at least 1 draw, got --draws 0"):
        compare_by(two, ["matching"], draws=0)
