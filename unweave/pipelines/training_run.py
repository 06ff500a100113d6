"""All coders of a plan in training: set up from first rows or from a checkpoint, trained, logged, checkpointed."""

import itertools
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unweave.activations.shuffle import Shuffle
from unweave.coders import Port, SparseCoder, Wiring, architecture
from unweave.errors import UserError
from unweave.pipelines.interrupt import stop_on_interrupt
from unweave.pipelines.logs import open_logs
from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import Job, Plan
from unweave.pipelines.row_source import RowSource
from unweave.pipelines.workbench import Places
from unweave.storage.checkpoints import Checkpoint, checkpoints, write_checkpoint
from unweave.storage.run_folder import CHECKPOINTS
from unweave.training import loop
from unweave.training.loop import Progress, new_trainee, resumed_trainee
from unweave.training.trainee import Trainee
from unweave.types import Rows, TextPosition

_SAMPLE_ROWS = 16_384
"""Rows from which the input scale and the mean row are estimated."""
_ROLLING = 2
"""Checkpoints that stay beside the new one's, in case it is damaged, the new one included."""


@dataclass
class TrainingRun:
    """Coders in training and the rows that come next."""

    plan: Plan
    source: RowSource
    trainees: list[Trainee]
    shuffle: Shuffle
    n_done: int = 0
    """Steps done."""
    n_rows: int = 0
    """Rows trained on."""

    def checkpoint(self) -> Checkpoint:
        """All that decides how it goes on."""
        after = self.shuffle.after
        assert after is not None, "the source of a training says where it goes on"
        state = {f"{t.name}/{key}": value for t in self.trainees for key, value in t.state().items()}
        facts = {"rows": self.n_rows, "after": list(after), "source": self.source.identity}
        return Checkpoint(self.n_done, state, self.shuffle.state(), facts)


def new_training_run(plan: Plan, source: RowSource) -> TrainingRun:
    """Coders set up on the first rows, and all rows again from the first."""
    rows = source.rows(TextPosition())
    first: list[Rows] = []
    while sum(map(len, first)) < min(_SAMPLE_ROWS, plan.recipe.training.rows):
        first.append(next(rows))
    sample = {
        site: torch.cat([batch.activations[site] for batch in first])[:_SAMPLE_ROWS].float() for site in source.sites
    }
    widths = {site: x.shape[1] for site, x in sample.items()}
    trainees = []
    for name, job in plan.jobs.items():
        coder = _new_coder(job, source.places[name], widths, sample[source.sites[0]].device)
        trainees.append(new_trainee(name, coder, sample, job.recipe.training))
    return TrainingRun(plan, source, trainees, _shuffle(plan, itertools.chain(first, rows)))


def resumed_training_run(plan: Plan, source: RowSource, checkpoint: Checkpoint) -> TrainingRun:
    """The run as it was when the checkpoint was written; raises ``UserError`` where its rows would be others."""
    if checkpoint.facts["source"] != source.identity:
        raise UserError("the text or the cache is not the one that the run began with, so it cannot go on; train anew")
    device = source.device
    shuffle = _shuffle(plan, source.rows(TextPosition(*checkpoint.facts["after"])))
    shuffle.load_state({name: _on(device, name, x) for name, x in checkpoint.rows.items()})
    widths = {
        name.removeprefix("buffer."): x.shape[1] for name, x in checkpoint.rows.items() if name.startswith("buffer.")
    }
    trainees = []
    for name, job in plan.jobs.items():
        state = {key.removeprefix(f"{name}/"): x for key, x in checkpoint.state.items() if key.startswith(f"{name}/")}
        if not state:
            raise UserError(f"the checkpoint has no coder {name}; resume with the recipe that it was trained with")
        coder = _new_coder(job, source.places[name], widths, device)
        trainees.append(resumed_trainee(name, coder, job.recipe.training, state))
    return TrainingRun(plan, source, trainees, shuffle, checkpoint.step, checkpoint.facts["rows"])


def train_into(folder: Path, coder_folders: Mapping[str, Path], run: TrainingRun, watch: Watch) -> None:
    """Train to the end, or to Ctrl-C; metrics go into each coder's folder, checkpoints into the run's."""
    config = run.plan.recipe.training
    keeper = _Keeper(folder / CHECKPOINTS, run, watch)
    started, rows_before = time.time(), run.n_rows
    with ExitStack() as stack:
        logs = open_logs(stack, run.plan.recipe.logging, folder, coder_folders, run.plan, run.n_done)
        bar = stack.enter_context(watch.bar("training", config.rows))
        interrupt = stack.enter_context(stop_on_interrupt())
        for progress in loop.train(run.trainees, run.shuffle, config, start=run.n_done):
            run.n_done, run.n_rows = progress.step + 1, progress.rows
            for log, (name, figures) in itertools.product(logs, progress.metrics.items()):
                log.write(name, progress.step, progress.rows, figures)
            speed = (run.n_rows - rows_before) / (time.time() - started)
            bar.at(min(run.n_rows, config.rows), **_live(progress, speed))
            keeper.look()
            if interrupt.requested:
                break
    if run.n_done < config.n_steps:
        keeper.keep()
        watch.say(f"stopped after {run.n_rows:,} of {config.rows:,} rows; measuring as it is, `--resume` goes on")


def forget_checkpoints(folder: Path, plan: Plan) -> None:
    """Remove the checkpoints that were only there in case the training was cut short."""
    planned = _planned(plan)
    for path in checkpoints(folder / CHECKPOINTS):
        if _step(path) not in planned:
            shutil.rmtree(path)
    if (folder / CHECKPOINTS).is_dir() and not any((folder / CHECKPOINTS).iterdir()):
        (folder / CHECKPOINTS).rmdir()


class _Keeper:
    """Writes checkpoints when they are due and removes those that newer ones replace."""

    def __init__(self, folder: Path, run: TrainingRun, watch: Watch) -> None:
        self.folder = folder
        self.run = run
        self.watch = watch
        self.planned = _planned(run.plan)
        self.last = time.monotonic()
        self.failed = False

    def look(self) -> None:
        minutes = self.run.plan.recipe.checkpoints.every_minutes
        is_due = minutes > 0 and time.monotonic() - self.last >= 60 * minutes
        if self.run.n_done in self.planned or (is_due and self.run.n_done < self.run.plan.recipe.training.n_steps):
            self.keep()

    def keep(self) -> None:
        """Write a checkpoint; a disk that is full costs the checkpoint and not the training."""
        self.last = time.monotonic()
        try:
            write_checkpoint(self.folder, self.run.checkpoint())
        except OSError as error:
            if not self.failed:
                reason = error.strerror or error
                self.watch.say(f"no checkpoint after step {self.run.n_done}: {reason}; free some space on its disk")
            self.failed = True
            return
        self.failed = False
        rolling = [path for path in checkpoints(self.folder) if _step(path) not in self.planned]
        for path in rolling[:-_ROLLING]:
            shutil.rmtree(path)


def _planned(plan: Plan) -> set[int]:
    """Steps after which a checkpoint stays: at equal distances, each the next step that is logged."""
    config, count = plan.recipe.training, plan.recipe.checkpoints.kept
    ideal = (config.n_steps * (i + 1) / count for i in range(count))
    return {min(config.n_steps, 1 + config.log_every * round(step / config.log_every)) for step in ideal}


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _new_coder(job: Job, places: Places, widths: Mapping[str, int], device: torch.device) -> SparseCoder:
    torch.manual_seed(job.recipe.seed)
    reads, writes = (tuple(Port(site, widths[site]) for site in sites) for sites in places)
    return architecture(job.coder_type)(job.coder, Wiring(reads, writes, job.recipe.skip)).to(device)


def _shuffle(plan: Plan, rows: Iterator[Rows]) -> Shuffle:
    config = plan.recipe.training
    return Shuffle(rows, config.buffer, config.batch, torch.Generator().manual_seed(plan.recipe.data_seed))


def _on(device: torch.device, name: str, x: Tensor) -> Tensor:
    return x.to(device) if name.startswith(("buffer.", "spill.")) else x


def _live(progress: Progress, rows_per_second: float) -> dict[str, str]:
    """Live figures beside the bar: a number, or the range over several coders."""
    shown = {"L0": ("l0", "{:.0f}"), "EV": ("explained_variance", "{:.2f}"), "dead": ("dead_share", "{:.0%}")}
    figures = {}
    for title, (name, form) in shown.items():
        values = [figures[name] for figures in progress.metrics.values()]
        ends = dict.fromkeys(form.format(value) for value in (min(values), max(values)))
        figures[title] = " to ".join(ends)
    return figures | {"tokens/s": f"{rows_per_second:,.0f}"}
