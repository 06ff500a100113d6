"""Measure a finished coder on held-out text and record all of its latents."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from unweave.analysis.latent_records import LatentRecorder
from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.evals.core import CoreMeasures, mean_rows
from unweave.metrics import definitions, metric_name
from unweave.models.logit_lens import promoted_and_suppressed
from unweave.models.tokens import token_texts
from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import read_job
from unweave.pipelines.report import write_report
from unweave.pipelines.workbench import Workbench, set_up
from unweave.storage.latent_index import write_latents
from unweave.storage.measured import write_sums
from unweave.storage.run_folder import Run, write_json
from unweave.types import TokenBatch

_MEASURING = ("evaluation.", "text.", "model.device", "model.sequences", "model.spread")
"""Beginnings of the settings that may differ from those of the training."""

_SEQUENCES = 8
"""Sequences that are measured at once, whose logits are held."""
_MEAN_TOKENS = 16_384
"""Tokens for the mean row that is spliced in for comparison."""


def evaluate_run(path: Path, overrides: list[str], watch: Watch) -> Run:
    """Measure a run anew, with its own recipe or with overrides such as ``evaluation.tokens=1_000_000``."""
    run = Run(path)
    coder = run.coder
    with watch.waiting("loading the model and the text"):
        bench = bench_of(run, overrides)
    measure_into({run.path: coder.to(bench.model.device)}, bench, watch)
    run = Run(path)
    with watch.waiting("writing the report"):
        write_report(run, name=run.path.resolve().name)
    return run


def bench_of(run: Run, overrides: Sequence[str]) -> Workbench:
    """The model and text of a run, with overrides of what may differ from those of the training."""
    if wrong := [override for override in overrides if not override.startswith(_MEASURING)]:
        raise UserError(f"{wrong[0]!r} would change what was trained; evaluate takes {', '.join(_MEASURING)} settings")
    return set_up(read_job(str(run.path / "config.toml"), list(overrides)).recipe)


def measure_into(coders: Mapping[Path, SparseCoder], bench: Workbench, watch: Watch) -> None:
    """Write ``results.json`` and ``latents.sqlite`` of coders into their folders; all are measured in the same passes.

    They are on the model's device.
    """
    config, max_norm = bench.recipe.evaluation, bench.recipe.packing.max_norm
    sites = list(dict.fromkeys(port.site for coder in coders.values() for port in coder.wiring.writes))
    with watch.waiting("finding the mean of the rows"):
        first = held_out(bench, _MEAN_TOKENS)
        means = mean_rows(bench.model, first, sites, max_norm=max_norm)
    named = {str(folder): coder for folder, coder in coders.items()}
    measures = CoreMeasures(bench.model, named, means, max_norm=max_norm)
    recorders = {
        folder: LatentRecorder(coder.n_latents, n_examples=config.examples, reach=config.reach)
        for folder, coder in coders.items()
    }
    n_documents = 0
    with watch.bar("measuring", config.tokens) as bar:
        n_tokens = 0
        for batch in held_out(bench, config.tokens):
            coded = measures.update(batch, splice=n_tokens < config.splice_tokens)
            for folder in coders:
                recorders[folder].update(batch, *coded[str(folder)])
            n_tokens += int(batch.is_content.sum())
            n_documents = max(n_documents, int(batch.document_ids.max()) + 1)
            bar.at(min(n_tokens, config.tokens))
    for folder, measured in measures.compute().items():
        coder = named[folder]
        write_json(
            Path(folder) / "results.json",
            {
                **measured.figures,
                "n_tokens": measured.n,
                "n_documents": n_documents,
                "n_latents": coder.n_latents,
                "d_model": coder.d_model,
                "standard_errors": measured.standard_errors,
                "distributions": measures.coders[folder].distributions(),
                "measured_with": {"text": bench.recipe.text.source, **asdict(config)},
                "definition_versions": {name: definition.version for name, definition in definitions().items()},
            },
        )
        write_sums(Path(folder), {metric_name(type(m)): m.sums for m in measures.coders[folder].metrics})
        _write_latents(Path(folder), coder, recorders[Path(folder)], bench)


def _write_latents(folder: Path, coder: SparseCoder, recorder: LatentRecorder, bench: Workbench) -> None:
    last = coder.wiring.writes[-1]  # of several sites, the last is nearest to the logits
    tables = promoted_and_suppressed(
        bench.model, last.site, coder.W_dec[:, -last.width :], bench.recipe.evaluation.promoted
    )
    promoted, suppressed = tables if tables is not None else (None, None)
    names = list(itertools.islice(bench.corpus.held_out.names(), 1 + int(recorder.documents.max())))
    records = recorder.records(names, promoted, suppressed)
    write_latents(folder / "latents.sqlite", records, token_texts(bench.model, range(bench.model.n_vocabulary)))


def held_out(bench: Workbench, n_tokens: int) -> Iterator[TokenBatch]:
    """Batches of held-out text until ``n_tokens`` content tokens were given out, or the text ends."""
    seen = 0
    for batch in bench.token_batches(bench.corpus.held_out, _SEQUENCES):
        yield batch
        seen += int(batch.is_content.sum())
        if seen >= n_tokens:
            return
