"""The main job: harvest activations, train a coder on them, measure it, look at its latents, write the run."""

import hashlib
import itertools
import json
import platform
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from unweave.activations.harvest import harvest
from unweave.activations.shuffle import shuffled
from unweave.coders import Origin, Port, SparseCoder, Wiring, architecture
from unweave.formats.files import write_atomically
from unweave.formats.native import write_coder
from unweave.formats.texts import Corpus
from unweave.pipelines.evaluate import measure_into
from unweave.pipelines.interrupt import stop_on_interrupt
from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import Job, read_job
from unweave.pipelines.report import write_report
from unweave.pipelines.workbench import Workbench, set_up
from unweave.storage.run_folder import Run, check_free, new_run_folder, write_json
from unweave.training import loop
from unweave.training.loop import NotFinite, Progress, Trainee, finish, new_trainee
from unweave.types import Rows

_SAMPLE_ROWS = 16_384
"""Rows from which the input scale and the mean row are estimated."""


def train(
    recipe: str | Path, *overrides: str, out: str | Path | None = None, overwrite: bool = False, quiet: bool = False
) -> Run:
    """Do the main job of a recipe (``"demo"`` or a TOML file) with overrides such as ``"coder.k=24"``.

    The run is written to ``out``, by default ``runs/`` and the recipe's name. Raises ``UserError`` for what is wrong
    in the recipe, the model or the text, before anything is written.
    """
    job = read_job(str(recipe), list(overrides))
    folder = Path(out) if out is not None else Path("runs") / Path(recipe).stem
    return run_job(job, folder, Watch(quiet=quiet), overwrite=overwrite)


def run_job(job: Job, out: Path, watch: Watch, *, overwrite: bool = False) -> Run:
    """Train, measure and report into ``out``; Ctrl-C ends the training early and measures what there is."""
    check_free(out, overwrite=overwrite)
    started = time.time()
    with watch.waiting("loading the model and the text"):
        bench = set_up(job.recipe)
        rows, trainee = _new_trainee(job, bench)
    watch.say(f"{bench.model.name} at {', '.join(bench.sites)}, {len(bench.corpus.train)} documents to train on")
    with new_run_folder(out, overwrite=overwrite) as folder:
        write_atomically(folder / "config.toml", job.to_toml())
        try:
            n_rows = _train_into(folder, trainee, rows, job, watch)
        except NotFinite as error:
            _write_trained(folder, trainee, bench)
            kept = str(folder / "coder")
            raise NotFinite(f"{error}; the coder as it was after the step before is kept in {kept!r}") from error
        coder = _write_trained(folder, trainee, bench)
        trained = time.time()
        write_json(folder / "manifest.json", _manifest(job, bench, n_rows) | {"seconds_training": trained - started})
        measure_into(folder, bench, coder, watch)
        with watch.waiting("writing the report"):
            write_report(Run(folder), name=out.name)
    watch.say(f"training took {trained - started:.0f} s, measuring and the report {time.time() - trained:.0f} s")
    return Run(out)


def _write_trained(folder: Path, trainee: Trainee, bench: Workbench) -> SparseCoder:
    coder = finish(trainee)
    coder.origin = Origin(bench.model.name)
    write_coder(folder / "coder", coder)
    return coder


def _new_trainee(job: Job, bench: Workbench) -> tuple[Iterator[Rows], Trainee]:
    """A coder set up on the first rows, and all rows again from the first."""
    torch.manual_seed(job.recipe.seed)
    rows = harvest(bench.model, _endless(bench), bench.sites)
    first: list[Rows] = []
    while sum(map(len, first)) < min(_SAMPLE_ROWS, job.recipe.training.rows):
        first.append(next(rows))
    sample = {
        site: torch.cat([batch.activations[site] for batch in first])[:_SAMPLE_ROWS].float() for site in bench.sites
    }
    reads, writes = (tuple(Port(s, sample[s].shape[1]) for s in sites) for sites in (bench.reads, bench.writes))
    wiring = Wiring(reads, writes, job.recipe.skip)
    coder: SparseCoder = architecture(job.coder_type)(job.coder, wiring).to(bench.model.device)
    trainee = new_trainee(job.coder_type, coder, sample, job.recipe.training)
    return itertools.chain(first, rows), trainee


def _endless(bench: Workbench) -> Iterator[Any]:
    while True:
        yield from bench.token_batches(bench.corpus.train)


def _train_into(folder: Path, trainee: Trainee, rows: Iterator[Rows], job: Job, watch: Watch) -> int:
    """Train, with every report a line of metrics.jsonl; returns the number of rows seen."""
    config = job.recipe.training
    batches = shuffled(rows, config.buffer, config.batch, torch.Generator().manual_seed(job.recipe.seed))
    started, n_rows = time.time(), 0
    with (
        watch.bar("training", config.rows) as bar,
        (folder / "metrics.jsonl").open("w") as log,
        stop_on_interrupt() as interrupt,
    ):
        for progress in loop.train([trainee], batches, config):
            n_rows = progress.rows
            seconds = time.time() - started
            log.write(json.dumps(_log_line(progress, trainee.name, seconds)) + "\n")
            log.flush()
            bar.at(min(n_rows, config.rows), **_live(progress.metrics[trainee.name], n_rows / seconds))
            if interrupt.requested:
                break
    if n_rows < config.rows:
        watch.say(f"stopped after {n_rows:,} of {config.rows:,} rows; measuring the coder as it is")
    return n_rows


def _log_line(progress: Progress, name: str, seconds: float) -> dict[str, int | float]:
    head = {"step": progress.step, "rows": progress.rows, "seconds": round(seconds, 3), "lr": progress.lr}
    return head | progress.metrics[name]


def _live(figures: dict[str, float], rows_per_second: float) -> dict[str, str]:
    return {
        "L0": f"{figures['l0']:.0f}",
        "EV": f"{figures['explained_variance']:.2f}",
        "dead": f"{figures['dead_share']:.0%}",
        "tokens/s": f"{rows_per_second:,.0f}",
    }


def _manifest(job: Job, bench: Workbench, n_rows: int) -> dict[str, Any]:
    return {
        "versions": {name: version(name) for name in ("unweave", "torch", "transformers", "tokenizers")},
        "python": platform.python_version(),
        "device": str(bench.model.device),
        "threads": torch.get_num_threads(),
        "seed": job.recipe.seed,
        "rows_trained": n_rows,
        "documents": {"train": len(bench.corpus.train), "held_out": len(bench.corpus.held_out)},
        "text_sha256": _text_hash(bench.corpus),
    }


def _text_hash(corpus: Corpus) -> str:
    digest = hashlib.sha256()
    for document in itertools.chain(corpus.train, corpus.held_out):
        digest.update(document.name.encode() + b"\0" + document.text.encode() + b"\0")
    return digest.hexdigest()
