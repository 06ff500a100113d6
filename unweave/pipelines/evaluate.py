"""Measure a finished coder on held-out text and record all of its latents."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from unweave.analysis.latent_records import LatentRecorder
from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.evals.core import MeasuredRows, RowMeasures, Splice, measure_splicing
from unweave.metrics import definitions
from unweave.models.logit_lens import promoted_and_suppressed
from unweave.models.tokens import token_texts
from unweave.pipelines.progress import Bar, Watch
from unweave.pipelines.recipe import read_job
from unweave.pipelines.report import write_report
from unweave.pipelines.workbench import Workbench, set_up
from unweave.storage.latent_index import write_latents
from unweave.storage.run_folder import Run, write_json
from unweave.types import TokenBatch

_MEASURING = ("evaluation.", "text.", "model.device", "model.sequences", "model.spread")
"""Beginnings of the settings that may differ from those of the training."""

_SPLICE_SEQUENCES = 8
"""Sequences per splicing batch; each batch is a block for the standard errors."""


def evaluate_run(path: Path, overrides: list[str], watch: Watch) -> Run:
    """Measure a run anew, with its own recipe or with overrides such as ``evaluation.tokens=1_000_000``."""
    if wrong := [override for override in overrides if not override.startswith(_MEASURING)]:
        raise UserError(f"{wrong[0]!r} would change what was trained; evaluate takes {', '.join(_MEASURING)} settings")
    run = Run(path)
    coder = run.coder
    with watch.waiting("loading the model and the text"):
        bench = set_up(read_job(str(run.path / "config.toml"), overrides).recipe)
    measure_into({run.path: coder.to(bench.model.device)}, bench, watch)
    run = Run(path)
    with watch.waiting("writing the report"):
        write_report(run, name=run.path.resolve().name)
    return run


def measure_into(coders: Mapping[Path, SparseCoder], bench: Workbench, watch: Watch) -> None:
    """Write ``results.json`` and ``latents.sqlite`` of coders into their folders; all are measured in the same passes.

    They are on the model's device.
    """
    config = bench.recipe.evaluation
    with watch.bar("measuring latents", config.tokens) as bar:
        measured, recorders = _measure_rows(coders, bench, bar)
    with watch.bar("measuring loss", config.splice_tokens) as bar:
        batches = bench.token_batches(bench.corpus.held_out, _SPLICE_SEQUENCES)
        splices = {str(folder): Splice(coder, measured[folder].mean_D) for folder, coder in coders.items()}
        spliced = measure_splicing(bench.model, splices, _limited(batches, config.splice_tokens, bar))
    for folder, coder in coders.items():
        rows, losses = measured[folder], spliced[str(folder)]
        write_json(
            folder / "results.json",
            {
                **rows.measured.figures,
                **losses.figures,
                "n_tokens": rows.n_rows,
                "n_latents": coder.n_latents,
                "d_model": coder.d_model,
                "standard_errors": rows.measured.standard_errors | losses.standard_errors,
                "measured_with": {"text": bench.recipe.text.source, **asdict(config)},
                "definition_versions": {name: definition.version for name, definition in definitions().items()},
            },
        )
        _write_latents(folder, coder, recorders[folder], bench)


def _measure_rows(
    coders: Mapping[Path, SparseCoder], bench: Workbench, bar: Bar
) -> tuple[dict[Path, MeasuredRows], dict[Path, LatentRecorder]]:
    config = bench.recipe.evaluation
    measures = {folder: RowMeasures(coder) for folder, coder in coders.items()}
    recorders = {
        folder: LatentRecorder(coder.n_latents, n_examples=config.examples, reach=config.reach)
        for folder, coder in coders.items()
    }
    wirings = [coder.wiring for coder in coders.values()]
    sites = list(dict.fromkeys(port.site for wiring in wirings for port in wiring.reads + wiring.writes))
    for batch in _limited(bench.token_batches(bench.corpus.held_out), config.tokens, bar):
        rows = bench.rows(batch, sites)
        for folder in coders:
            recorders[folder].update(batch, rows, measures[folder].update(rows))
    return {folder: measure.compute() for folder, measure in measures.items()}, recorders


def _write_latents(folder: Path, coder: SparseCoder, recorder: LatentRecorder, bench: Workbench) -> None:
    last = coder.wiring.writes[-1]  # of several sites, the last is nearest to the logits
    tables = promoted_and_suppressed(
        bench.model, last.site, coder.W_dec[:, -last.width :], bench.recipe.evaluation.promoted
    )
    promoted, suppressed = tables if tables is not None else (None, None)
    names = list(itertools.islice(bench.corpus.held_out.names(), 1 + int(recorder.documents.max())))
    records = recorder.records(names, promoted, suppressed)
    write_latents(folder / "latents.sqlite", records, token_texts(bench.model, range(bench.model.n_vocabulary)))


def _limited(batches: Iterator[TokenBatch], n_tokens: int, bar: Bar) -> Iterator[TokenBatch]:
    """Batches until ``n_tokens`` content tokens were given out, or the text ends."""
    seen = 0
    for batch in batches:
        yield batch
        seen += int(batch.is_content.sum())
        bar.at(min(seen, n_tokens))
        if seen >= n_tokens:
            return
