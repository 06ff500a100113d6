"""Measure a finished coder on held-out text, in one process or in many."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from unweave.coders import SparseCoder
from unweave.evals.controls import Kind
from unweave.evals.core import CoderMeasures
from unweave.metrics import SplicedLoss, definitions, metric_name
from unweave.pipelines.floors import FIRST_TOKENS, FLOOR_SEED, first_rows
from unweave.pipelines.index import index_into
from unweave.pipelines.measuring import RESAMPLING_SEED, Measuring
from unweave.pipelines.processes import joined_ranks, leave
from unweave.pipelines.progress import Watch
from unweave.pipelines.report import write_report
from unweave.pipelines.workbench import Workbench, bench_of
from unweave.storage.measured import write_sums
from unweave.storage.results import Basis, Bins, Distributions, Floor, Results, write_results
from unweave.storage.run_folder import Run
from unweave.training.ranks import Ranks


def evaluate_run(path: Path, overrides: list[str], watch: Watch) -> Run:
    """Measure a run anew, with its own recipe or with overrides such as ``evaluation.tokens=1_000_000``.

    Of several processes that torchrun has started, the first writes and returns; the others end here.
    """
    run = Run(path)
    coder = run.coder
    with joined_ranks(1, "evaluate the run again") as ranks:
        with watch.waiting("loading the model and the text"):
            bench = bench_of(run, overrides)
        measure_into({run.path: coder.to(bench.model.device)}, bench, watch, ranks)
    if not run.has_index:
        index_into({run.path: coder}, bench, watch)
    run = Run(path)
    with watch.waiting("writing the report"):
        write_report(run, name=run.path.resolve().name)
    return run


def measure_into(
    coders: Mapping[Path, SparseCoder], bench: Workbench, watch: Watch, ranks: Ranks | None = None
) -> None:
    """Write ``results.json`` of coders into their folders; all are measured in the same passes.

    They are on the model's device. Several ``ranks`` share the text; the first writes, and the others end here.
    """
    config = bench.recipe.evaluation
    named = {str(folder): coder for folder, coder in coders.items()}
    with watch.waiting("finding the mean of the rows"):
        batches = bench.held_out(min(FIRST_TOKENS, config.tokens))
        first = first_rows(bench, named, batches, with_controls=config.floor_tokens > 0)
    measuring = Measuring(named, bench, first)
    with watch.bar("measuring", config.tokens) as bar:
        measuring.read(bench.held_out(config.tokens), bar, ranks)
    if ranks is not None:
        measuring.merge(ranks)
        leave(ranks)
    for folder in coders:
        name = str(folder)
        measures = measuring.coders[name]
        floors = {floor: _floor(measuring, kind) for floor, kind in first.kinds.get(name, {}).items()}
        write_results(folder, _results(folder, measures, measuring, floors, bench))
        write_sums(folder, {metric_name(type(m)): m.sums for m in measures.metrics})


def _results(
    folder: Path, measures: CoderMeasures, measuring: Measuring, floors: Mapping[str, Floor], bench: Workbench
) -> Results:
    measured = measures.compute()
    distributions = measures.distributions()
    return Results(
        figures=measured.figures,
        standard_errors=measured.standard_errors,
        basis=_basis(measures, measuring),
        floors=dict(floors),
        seeds=training_seed(folder) | {"resample_ablation": RESAMPLING_SEED, "random_floor": FLOOR_SEED},
        distributions=Distributions(
            tokens_by_l0=distributions["tokens_by_l0"], latents_by_density=Bins(**distributions["latents_by_density"])
        ),
        n_tokens=measured.n,
        n_documents=measuring.whole.n_documents,
        n_latents=measures.coder.n_latents,
        d_model=measures.coder.d_model,
        measured_with={
            "text": bench.recipe.text.source,
            "device": str(bench.model.device),
            **asdict(bench.recipe.evaluation),
        },
    )


def _basis(measures: CoderMeasures, measuring: Measuring) -> dict[str, Basis]:
    """The tokens of each figure: those that were spliced, or all."""
    n_rows = measures.reconstruction.n_rows
    n_spliced = int(measures.spliced.sums["tokens"].sum())
    spliced = {definition.name for definition in SplicedLoss.definitions}
    return {
        name: Basis(version=definition.version, n_tokens=n_spliced, n_documents=measuring.spliced.n_documents)
        if name in spliced
        else Basis(version=definition.version, n_tokens=n_rows, n_documents=measuring.whole.n_documents)
        for name, definition in definitions().items()
    }


def _floor(measuring: Measuring, kind: Kind) -> Floor:
    measured = measuring.controls[kind].compute()
    return Floor(
        figures=measured.figures,
        standard_errors=measured.standard_errors,
        n_tokens=measured.n,
        n_documents=measuring.controlled.n_documents,
    )


def training_seed(folder: Path) -> dict[str, int]:
    """The seed of a run's training by its name; nothing where there is no manifest to say so."""
    path = folder / "manifest.json"
    seed = json.loads(path.read_text()).get("seed") if path.is_file() else None
    return {} if seed is None else {"training": seed}
