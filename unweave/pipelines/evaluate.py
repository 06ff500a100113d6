"""Measure a finished coder on held-out text and record all of its latents."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from unweave.activations.harvest import rows_of
from unweave.analysis.latent_records import LatentRecord, LatentRecorder
from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.evals.core import MeasuredRows, measure_rows, measure_splicing
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

_MEASURING = ("evaluation.", "text.", "model.device", "model.sequences")
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
    measure_into(run.path, bench, coder.to(bench.model.device), watch)
    run = Run(path)
    with watch.waiting("writing the report"):
        write_report(run, name=run.path.resolve().name)
    return run


def measure_into(folder: Path, bench: Workbench, coder: SparseCoder, watch: Watch) -> None:
    """Write ``results.json`` and ``latents.sqlite`` of a coder."""
    config = bench.recipe.evaluation
    with watch.bar("measuring latents", config.tokens) as bar:
        rows, records = _measure_rows(bench, coder, bar)
    with watch.bar("measuring loss", config.splice_tokens) as bar:
        batches = bench.token_batches(bench.corpus.held_out, _SPLICE_SEQUENCES)
        spliced = measure_splicing(bench.model, coder, _limited(batches, config.splice_tokens, bar), rows.mean_D)
    figures = rows.measured.figures | spliced.figures
    errors = rows.measured.standard_errors | spliced.standard_errors
    write_json(
        folder / "results.json",
        {
            **figures,
            "n_tokens": rows.n_rows,
            "n_latents": coder.n_latents,
            "d_model": coder.d_model,
            "standard_errors": errors,
            "measured_with": {"text": bench.recipe.text.source, **asdict(config)},
            "definition_versions": {name: definition.version for name, definition in definitions().items()},
        },
    )
    write_latents(folder / "latents.sqlite", records, token_texts(bench.model, range(bench.model.n_vocabulary)))


def _measure_rows(bench: Workbench, coder: SparseCoder, bar: Bar) -> tuple[MeasuredRows, list[LatentRecord]]:
    config = bench.recipe.evaluation
    recorder = LatentRecorder(coder.n_latents, n_examples=config.examples, reach=config.reach)
    batches = _limited(bench.token_batches(bench.corpus.held_out), config.tokens, bar)
    with_rows = ((batch, rows_of(batch, bench.model.capture(batch.token_ids, bench.sites))) for batch in batches)
    measured = measure_rows(coder, with_rows, recorder.update)
    last = coder.wiring.writes[-1]  # of several sites, the last is nearest to the logits
    tables = promoted_and_suppressed(bench.model, last.site, coder.W_dec[:, -last.width :], config.promoted)
    promoted, suppressed = tables if tables is not None else (None, None)
    names = [document.name for document in bench.corpus.held_out]
    return measured, recorder.records(names, promoted, suppressed)


def _limited(batches: Iterator[TokenBatch], n_tokens: int, bar: Bar) -> Iterator[TokenBatch]:
    """Batches until ``n_tokens`` content tokens were given out, or the text ends."""
    seen = 0
    for batch in batches:
        yield batch
        seen += int(batch.is_content.sum())
        bar.at(min(seen, n_tokens))
        if seen >= n_tokens:
            return
