"""All coders of a plan, from the first row to their reports: what training, sweeping and resuming have in common."""

import platform
import time
from collections.abc import Mapping
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from unweave.coders import Origin, SparseCoder
from unweave.errors import UserError
from unweave.formats.files import write_atomically, write_json
from unweave.formats.native import read_coder, write_coder
from unweave.pipelines.evaluate import measure_into
from unweave.pipelines.index import index_into
from unweave.pipelines.keeper import forget_checkpoints
from unweave.pipelines.processes import joined_ranks, leave, process_count, process_number
from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import Job, Plan
from unweave.pipelines.report import write_report
from unweave.pipelines.row_source import RowSource, open_source
from unweave.pipelines.training_run import TrainingRun, new_training_run, train_into
from unweave.storage.checkpoints import newest_checkpoint
from unweave.storage.parts import write_coder_in_parts
from unweave.storage.run_folder import CHECKPOINTS, Run, check_free, new_run_folder, partial_folder
from unweave.training.loop import finish
from unweave.training.step import NotFinite


def default_folder(recipe: str | Path, out: str | Path | None) -> Path:
    """Where a run goes: ``out``, or ``runs/`` and the recipe's name."""
    return Path(out) if out is not None else Path("runs") / Path(recipe).stem


def run_plan(plan: Plan, out: Path, watch: Watch, *, overwrite: bool = False) -> Path:
    """Train all coders of a plan in one pass, measure and report them; Ctrl-C ends the training and measures.

    A single coder's run is ``out`` itself; the coders of a grid have a run each in ``out/coders``.
    """
    is_first = process_number() == 0
    if is_first:
        check_free(out, overwrite=overwrite)
    with joined_ranks(plan.recipe.training.latent_parts) as ranks:
        with watch.waiting("loading the model and the text"):
            source = open_source(plan, watch.say, ranks)
            run = new_training_run(plan, source, ranks)
        new = new_run_folder(out, overwrite=overwrite) if is_first else nullcontext(partial_folder(out))
        with new as folder:
            if is_first:
                write_atomically(folder / "config.toml", plan.to_toml())
            train_and_measure(folder, out.name, run, source, watch)
    return out


def coder_folders(folder: Path, plan: Plan) -> dict[str, Path]:
    """Where the run of each coder lies."""
    return {name: folder / "coders" / name if plan.is_grid else folder for name in plan.jobs}


def train_and_measure(folder: Path, name: str, run: TrainingRun, source: RowSource, watch: Watch) -> None:
    """Train to the end, then measure and report every coder; ``folder`` is where the run is until it is whole.

    Of several processes the first measures alone, and the others end; where they share a model, all of them run it.
    """
    started = time.time()
    watch.say(source.describe())
    folders = coder_folders(folder, run.plan)
    is_first = process_number() == 0
    if is_first:
        for coder_name, path in folders.items():
            write_atomically(path / "config.toml", run.plan.jobs[coder_name].to_toml())
    if run.ranks is not None:
        run.ranks.wait()
    try:
        train_into(folder, folders, run, watch)
    except NotFinite as error:
        _write_trained(folders, run, source)
        raise NotFinite(f"{error}; {_kept(folder, run.plan)}") from error
    run.shuffle.close()
    coders = _write_trained(folders, run, source)
    if not source.shares_model:
        leave(run.ranks)
    trained = time.time()
    for coder_name, path in folders.items() if is_first else ():
        facts = _manifest(run.plan.jobs[coder_name], run.n_rows) | source.facts()
        write_json(path / "manifest.json", facts | {"seconds_training": trained - started})
    try:
        with watch.waiting("loading the model and the text"):
            bench = source.bench()
    except UserError as error:
        if not run.plan.recipe.cache:
            raise
        watch.say(f"trained but not measured: {error}; `unweave evaluate` on the run does it where the model is")
    else:
        with TemporaryDirectory() as nowhere:
            where = folders if is_first else {coder_name: Path(nowhere, coder_name) for coder_name in folders}
            placed = {where[coder_name]: coder for coder_name, coder in coders.items()}
            measure_into(placed, bench, watch)
            index_into(placed, bench, watch)
        if source.shares_model:
            leave(run.ranks)
        with watch.waiting("writing the report"):
            for coder_name, path in folders.items():
                write_report(Run(path), name=coder_name if run.plan.is_grid else name)
    if run.n_done >= run.plan.recipe.training.n_steps:
        forget_checkpoints(folder, run.plan)
    watch.say(f"training took {trained - started:.0f} s, measuring and the report {time.time() - trained:.0f} s")


def _write_trained(folders: Mapping[str, Path], run: TrainingRun, source: RowSource) -> dict[str, SparseCoder]:
    coders = {}
    for trainee in run.trainees:
        folder, ranks = folders[trainee.name] / "coder", run.ranks
        coder = coders[trainee.name] = finish(trainee)
        coder.origin = Origin(source.model_name, run.plan.recipe.packing.prepend_bos)
        if ranks is not None and ranks.n_latent_parts > 1:
            write_coder_in_parts(folder, coder, ranks)
            if ranks.rank == 0 or source.shares_model:
                coders[trainee.name] = read_coder(folder).to(source.device)
        elif process_number() == 0:
            write_coder(folder, coder)
    return coders


def _kept(folder: Path, plan: Plan) -> str:
    """What is left of a training that failed."""
    checkpoint = newest_checkpoint(folder / CHECKPOINTS, allow_previous=True)
    last = "" if checkpoint is None else f", and the checkpoint after step {checkpoint.step} in {CHECKPOINTS}"
    what, where = ("coders", folder / "coders") if plan.is_grid else ("coder", folder / "coder")
    return f"the {what} of the step before {'are' if plan.is_grid else 'is'} kept in {str(where)!r}{last}"


def _manifest(job: Job, n_rows: int) -> dict[str, Any]:
    return {
        "versions": {name: version(name) for name in ("unweave", "torch", "transformers", "tokenizers")},
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "processes": process_count(),
        "seed": job.recipe.seed,
        "rows_trained": n_rows,
    }
