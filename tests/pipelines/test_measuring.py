"""One pass over held-out text: any number of processes have the figures of one, beside floors on the first part."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from unweave.coders import Port, SparseCoder, Wiring, architecture
from unweave.errors import UserError
from unweave.formats.native import write_coder
from unweave.formats.saebench import read_saebench
from unweave.pipelines.evaluate import evaluate_run, measure_into
from unweave.pipelines.floors import first_rows
from unweave.pipelines.measuring import Measuring
from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import build_job, read_job
from unweave.pipelines.saebench import write_saebench
from unweave.pipelines.suites import measure_suites, share_of
from unweave.pipelines.workbench import Workbench, set_up
from unweave.storage.measured import read_sums
from unweave.storage.results import SuiteFigures, read_results, read_suites, write_suites
from unweave.storage.run_folder import Run
from unweave.types import Part

SITE = "layers.1.resid_post"
QUIET = Watch(quiet=True)
ALONE = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


@pytest.fixture
def bench(recipe: dict) -> Workbench:
    return set_up(build_job(recipe).recipe)


def _coder(k: int = 7, n_latents: int = 63, seed: int = 0) -> SparseCoder:
    cls = architecture("topk")
    coder = cls(cls.Config(n_latents=n_latents, k=k, decoder_norm="free"), Wiring.sae(24, SITE))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        coder.W_dec.copy_(torch.randn(n_latents, 24, generator=generator) / 5)
        coder.W_enc.copy_(coder.W_dec)
    return coder.eval().requires_grad_(False)


def _rows(bench: Workbench, n_tokens: int) -> torch.Tensor:
    """All content rows of the first batches that have so many tokens."""
    batches = list(bench.held_out(n_tokens))
    return torch.cat([bench.model.capture(b.token_ids, SITE)[SITE][b.is_content] for b in batches]).double()


def test_floors_are_those_of_coders_that_have_learned_nothing(bench: Workbench, tmp_path: Path) -> None:
    """Principal directions are worked out again from all rows at once, on the tokens that are spliced for floors."""
    measure_into({tmp_path: _coder()}, bench, QUIET)
    results = read_results(tmp_path)
    assert set(results.floors) == {"random", "pca", "identity"}
    floors = {name: floor.figures for name, floor in results.floors.items()}
    for name, floor in results.floors.items():
        assert set(floor.figures) == set(results.figures) == set(results.basis), name
        assert floor.n_tokens < results.n_tokens and floor.standard_errors["l0"] is not None
    assert floors["identity"]["explained_variance"] == 1.0 and floors["identity"]["ce_increase"] == 0.0
    assert floors["random"]["l0"] == floors["pca"]["l0"] == results.figures["l0"] == 7.0
    fitted, measured_rows = _rows(bench, bench.recipe.evaluation.tokens).numpy(), _rows(bench, 600).numpy()
    assert len(measured_rows) == results.floors["pca"].n_tokens
    directions = np.linalg.svd(fitted - fitted.mean(0), full_matrices=False)[2][:7]
    centred = measured_rows - fitted.mean(0)
    left = np.square(centred - centred @ directions.T @ directions).sum()
    explained = 1 - left / np.square(measured_rows - measured_rows.mean(0)).sum()
    assert floors["pca"]["explained_variance"] == pytest.approx(explained, abs=1e-4)


def test_every_figure_says_what_it_stands_on(recipe: dict, tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"{i} threads and {i + 1} knots are in this cloth. " * 5}) for i in range(100)]
    (tmp_path / "cloths.jsonl").write_text("\n".join(lines))
    recipe["text"] = {"source": str(tmp_path / "cloths.jsonl"), "held_out": 0.5}
    bench = set_up(build_job(recipe).recipe)
    (tmp_path / "manifest.json").write_text(json.dumps({"seed": 5}))
    measure_into({tmp_path: _coder()}, bench, QUIET)
    results = read_results(tmp_path)
    batches = list(bench.held_out(1500))
    n_tokens = sum(int(batch.is_content.sum()) for batch in batches)
    assert results.n_tokens == results.basis["l0"].n_tokens == n_tokens
    assert results.n_documents == len({int(i) for batch in batches for i in batch.document_ids.unique()})
    spliced = list(bench.held_out(600))
    assert results.basis["ce_clean"].n_tokens == sum(batch.token_ids[:, 1:].numel() for batch in spliced)
    assert results.basis["ce_clean"].n_documents == int(spliced[-1].document_ids.max()) + 1 < results.n_documents
    assert results.seeds == {"training": 5, "resample_ablation": 0, "random_floor": 0}
    assert results.measured_with["device"] == "cpu" and results.measured_with["floor_tokens"] == 16_384


def test_there_are_no_floors_where_none_are_asked_for_or_none_can_stand_in(recipe: dict, tmp_path: Path) -> None:
    recipe["evaluation"]["floor_tokens"] = 0
    bench = set_up(build_job(recipe).recipe)
    cls = architecture("relu")
    wiring = Wiring.transcoder(Port("layers.1.mlp_in", 24), Port("layers.1.mlp_out", 24))
    transcoder = cls(cls.Config(n_latents=63), wiring).requires_grad_(False)
    assert first_rows(bench, {"it": transcoder}, bench.held_out(300)).kinds == {}
    measure_into({tmp_path: _coder()}, bench, QUIET)
    assert read_results(tmp_path).floors == {}


def test_coders_that_are_alike_share_their_controls_and_have_those_that_each_has_alone(bench: Workbench) -> None:
    coders = {"a": _coder(), "b": _coder(seed=1), "sparser": _coder(k=3), "wider": _coder(n_latents=100)}
    first = first_rows(bench, coders, bench.held_out(1000))
    assert first.kinds["a"] == first.kinds["b"]
    assert [kind.name for kind in first.controls] == ["random", "pca", "identity", "random", "pca", "random"]
    for name, coder in coders.items():
        alone = first_rows(bench, {name: coder}, bench.held_out(1000))
        assert alone.kinds[name] == first.kinds[name]
        for kind, control in alone.controls.items():
            assert torch.equal(control.W_dec, first.controls[kind].W_dec)


def test_the_mean_row_is_that_of_the_content_tokens(bench: Workbench) -> None:
    first = first_rows(bench, {"it": _coder()}, bench.held_out(1000))
    torch.testing.assert_close(first.means[SITE], _rows(bench, 1000).mean(0).float(), rtol=1e-5, atol=1e-6)


def _shares(bench: Workbench, count: int) -> list[Measuring]:
    """What each of several processes counts, one after the other."""
    coders = {"it": _coder()}
    first = first_rows(bench, coders, bench.held_out(1000))
    shares = []
    for number in range(count):
        measuring = Measuring(coders, bench, first)
        for i, batch in enumerate(bench.held_out(1500)):
            measuring.add(batch, is_own=i % count == number)
        shares.append(measuring)
    return shares


def test_shares_of_the_text_add_up_to_the_whole(bench: Workbench) -> None:
    (whole,), shares = _shares(bench, 1), _shares(bench, 3)
    for kept in ("coders", "controls"):
        for name, measures in getattr(whole, kept).items():
            parts = [getattr(share, kept)[name] for share in shares]
            for i, metric in enumerate(measures.metrics):
                for part in parts[1:]:
                    parts[0].metrics[i].merge(part.metrics[i])
                assert parts[0].metrics[i].compute() == pytest.approx(metric.compute(), rel=1e-9, nan_ok=True)
                errors = parts[0].metrics[i].standard_errors()
                assert errors == pytest.approx(metric.standard_errors(), rel=1e-6, abs=1e-12)
    assert {share.whole for share in shares} == {whole.whole}


def _by_two_processes(command: str, folder: Path, *options: str) -> str:
    """What they print."""
    by_torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["-m", "unweave", command, str(folder), *options, "--quiet"]
    done = subprocess.run([*by_torchrun, *words], env=ALONE, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="torchrun's gloo processes need a POSIX system")
def test_two_processes_have_the_figures_of_one(run: Run, tmp_path: Path) -> None:
    folders = {count: tmp_path / str(count) / "small" for count in (1, 2)}
    for folder in folders.values():
        shutil.copytree(run.path, folder)
    evaluate_run(folders[1], [], QUIET)
    assert _by_two_processes("evaluate", folders[2]).count("held-out tokens") == 1, "one of them speaks"
    one, two = (read_results(folder) for folder in folders.values())
    pairs = [(one, two), *((one.floors[name], two.floors[name]) for name in ("random", "pca", "identity"))]
    for its, other in pairs:
        known = {name for name, value in its.figures.items() if value is not None}
        assert {"l0", "ce_resample_ablated"} < known == {n for n, value in other.figures.items() if value is not None}
        for name in known:
            assert other.figures[name] == pytest.approx(its.figures[name], rel=1e-9, abs=1e-12), name
        assert other.standard_errors == pytest.approx(its.standard_errors, rel=1e-6, abs=1e-9)
    assert (two.basis, two.seeds, two.n_documents) == (one.basis, one.seeds, one.n_documents)
    assert two.distributions == one.distributions and two.measured_with == one.measured_with
    sums, others = (read_sums(folder) for folder in folders.values())
    for metric, of_metric in sums.items():
        for name, values in of_metric.items():
            torch.testing.assert_close(others[metric][name], values, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="torchrun's gloo processes need a POSIX system")
def test_two_processes_have_the_suites_of_one(run: Run, tmp_path: Path) -> None:
    """Files are compared whole: no figure may differ in a bit."""
    folders = {count: tmp_path / str(count) / "small" for count in (1, 2)}
    for folder in folders.values():
        shutil.copytree(run.path, folder, ignore=shutil.ignore_patterns("index"))
    measure_suites(folders[1], ["geometry", "mdl"], QUIET)
    said = _by_two_processes("evaluate", folders[2], "--suite", "geometry,mdl")
    assert said.count("geometry: ") == said.count("mdl: ") == 1, "one of them speaks"
    one, two = (read_suites(folder) for folder in folders.values())
    assert list(two) == ["geometry", "mdl"] and list(two["mdl"]) == ["small", "random", "pca", "identity"]
    assert two == one


def test_processes_share_coders_first_and_suites_where_there_are_more_of_them() -> None:
    suites, coders = ["tpp", "scr", "mdl"], ["own", "random", "pca"]
    for count in range(1, 12):
        shares = [share_of(suites, coders, Part(number, count)) for number in range(count)]
        pairs = [(suite, coder) for share in shares for suite in share.suites for coder in share.coders]
        assert sorted(pairs) == sorted(itertools.product(suites, coders)), "each once"
    assert share_of(suites, coders, Part(1, 2)) == (suites, ["random"])
    assert share_of(suites, coders, Part(4, 5)) == (["scr"], ["random"])


def test_a_run_is_written_as_saebench_has_it(run: Run, tmp_path: Path) -> None:
    (path,) = write_saebench(run, tmp_path)
    assert path == tmp_path / "core" / "unweave_small_eval_results.json"
    values = json.loads(path.read_text())
    metrics, results = values["eval_result_metrics"], run.results
    assert metrics["sparsity"]["l0"] == results["l0"]
    assert metrics["token_stats"]["total_tokens_eval_sparsity_variance"] == results["n_tokens"]
    assert values["sae_cfg_dict"]["hook_name"] == "blocks.1.hook_resid_post"
    coder, latents = run.coder, values["eval_result_details"]
    assert len(latents) == 63 and sum(latent["feature_density"] for latent in latents) == pytest.approx(
        results["l0"], abs=63e-5
    )
    unit = torch.nn.functional.normalize(coder.W_dec, dim=1)
    nearest = (unit @ unit.T - 2 * torch.eye(63)).max(1).values
    assert [latent["max_decoder_cosine_sim"] for latent in latents] == pytest.approx(nearest.tolist(), abs=1e-5)
    assert metrics["misc_metrics"]["average_max_decoder_cosine_sim"] == pytest.approx(nearest.mean().item(), abs=1e-5)
    bench = set_up(read_job(str(run.path / "config.toml"), []).recipe)
    x = _rows(bench, 1500).float()
    assert metrics["sparsity"]["l1"] == pytest.approx(coder.encode(x).values.sum().item() / len(x), rel=1e-4)


def test_suites_that_saebench_has_too_are_written_beside_it(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "copied")

    def its(**figures: float) -> SuiteFigures:
        details = {f"piece/code/{name}": value for name, value in figures.items()}
        return SuiteFigures(figures=figures, standard_errors={}, n=63, details=details, seeds={"suite": 0})

    suites = {
        "probing": {"pca": its(probe_k1=0.5), "small": its(probe_k1=0.75, probe_k5=0.875, probe_row=1.0)},
        "absorption": {"small": its(absorption_full=0.25, absorption_row_f1=0.9)},
        "mdl": {"small": its(mdl_bits=7.0)},
    }
    write_suites(tmp_path / "copied", suites)
    paths = write_saebench(Run(tmp_path / "copied"), tmp_path / "out")
    assert [path.parent.name for path in paths] == ["core", "sparse_probing", "absorption_first_letter"]
    assert read_saebench(paths[1]).figures == {"probe_k1": 0.75, "probe_k5": 0.875, "probe_row": 1.0}
    values = json.loads(paths[1].read_text())
    assert values["eval_config"]["k_values"] == [1, 5] and values["eval_config"]["dataset_names"] == ["piece_results"]
    assert read_saebench(paths[2]).figures == {"absorption_full": 0.25}


def test_what_is_no_sae_is_not_written_for_saebench(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "copied"
    shutil.copytree(run.path, folder)
    cls = architecture("relu")
    transcoder = cls(
        cls.Config(n_latents=63), Wiring.transcoder(Port("layers.1.mlp_in", 24), Port("layers.1.mlp_out", 24))
    )
    transcoder.origin = run.coder.origin
    write_coder(folder / "coder", transcoder)
    with pytest.raises(UserError, match=r"SAEBench is for SAEs; .* holds a transcoder"):
        write_saebench(Run(folder), tmp_path / "out")
