"""All coders of a plan in training: set up from first rows or from a checkpoint, trained, logged, checkpointed."""

import itertools
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unweave.activations.sequences import Sequences
from unweave.activations.shuffle import Shuffle
from unweave.coders import Port, SparseCoder, Wiring, architecture
from unweave.errors import UserError
from unweave.pipelines.interrupt import stop_on_interrupt
from unweave.pipelines.keeper import Keeper
from unweave.pipelines.load import load
from unweave.pipelines.logs import open_logs
from unweave.pipelines.processes import process_number
from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import Job, Plan
from unweave.pipelines.row_source import ModelRows, RowSource
from unweave.pipelines.workbench import Places
from unweave.storage.checkpoints import Checkpoint
from unweave.storage.run_folder import CHECKPOINTS
from unweave.training import loop
from unweave.training.end_to_end import Spliced, clean_passes
from unweave.training.loop import Progress, new_trainee, resumed_trainee
from unweave.training.objective import LOCAL, Batch, Objective
from unweave.training.ranks import Ranks
from unweave.training.trainee import Trainee
from unweave.types import Part, Rows, TextPosition

_SAMPLE_ROWS = 16_384
"""Rows from which the input scale and the mean row are estimated."""
_SEED_STEP = 1_000_003
"""What sets the order of rows of one process apart from that of the next."""


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
    ranks: Ranks | None = None
    """The processes that train together, if there are several."""

    def batches(self) -> Iterator[Batch]:
        """What steps are taken on, from where ``shuffle`` is."""
        ranks = self.ranks
        if ranks is not None and ranks.n_latent_parts > 1 and not self.source.shares_model:
            return ({site: ranks.rows_of_part(x) for site, x in batch.items()} for batch in self.shuffle)
        spliced = [trainee.objective for trainee in self.trainees if isinstance(trainee.objective, Spliced)]
        if not spliced:
            return self.shuffle
        return clean_passes(spliced, self.shuffle, max_norm=self.plan.recipe.packing.max_norm)

    def checkpoint(self) -> Checkpoint:
        """All that decides how it goes on."""
        after = self.shuffle.after
        assert after is not None, "the source of a training says where it goes on"
        state = {f"{t.name}/{key}": value for t in self.trainees for key, value in t.state().items()}
        per_latent = [f"{t.name}/{key}" for t in self.trainees for key in t.names_per_latent()]
        every_after = [list(after)] if self.ranks is None else self.ranks.all_of([list(after)])
        if self.source.shares_model:
            every_after = every_after[:: len(every_after) // self.source.part.of]
        facts = {"rows": self.n_rows, "after": every_after, "source": self.source.identity}
        return Checkpoint(self.n_done, state, self.shuffle.state(), facts, per_latent)

    def any_wish(self, wish: bool) -> bool:
        """Whether any of the processes has this wish."""
        return wish if self.ranks is None else self.ranks.agree(wish)


def new_training_run(plan: Plan, source: RowSource, ranks: Ranks | None = None) -> TrainingRun:
    """Coders set up on the first rows, and all rows again from the first."""
    rows = source.rows(TextPosition())
    first: list[Rows] = []
    n_wanted = min(_SAMPLE_ROWS, plan.recipe.training.rows) // source.part.of
    while sum(map(len, first)) < n_wanted:
        first.append(next(rows))
    sample = {site: torch.cat([batch.activations[site] for batch in first])[:n_wanted].float() for site in source.sites}
    if ranks is not None:
        gathered = ranks.rows_of_row_parts if source.shares_model else ranks.rows_of_all
        sample = {site: gathered(x) for site, x in sample.items()}
    widths = {site: x.shape[1] for site, x in sample.items()}
    trainees = []
    for name, job in plan.jobs.items():
        coder = _new_coder(job, source.places[name], widths, sample[source.sites[0]].device)
        start = load(job.recipe.start) if job.recipe.start else None
        objective = _objective(job, source, coder)
        trainees.append(new_trainee(name, coder, sample, job.recipe.training, ranks, objective=objective, start=start))
    is_local = not plan.recipe.objective.needs_model
    items = itertools.chain(first, rows) if is_local else _stream(plan, source, TextPosition())
    return TrainingRun(plan, source, trainees, _shuffle(plan, source, items, 0), ranks=ranks)


def resumed_training_run(
    plan: Plan, source: RowSource, checkpoint: Checkpoint, ranks: Ranks | None = None
) -> TrainingRun:
    """The run as it was when the checkpoint was written; raises ``UserError`` where its rows would be others.

    By another number of processes it goes on behind the last document that any of them had read, with buffers that are
    filled anew.
    """
    if checkpoint.facts["source"] != source.identity:
        raise UserError("the text or the cache is not the one that the run began with, so it cannot go on; train anew")
    device = source.device
    items = _stream(plan, source, _goes_on(checkpoint.facts["after"], source.part))
    shuffle = _shuffle(plan, source, items, checkpoint.step)
    if checkpoint.rows and len(checkpoint.facts["after"]) == source.part.of:
        shuffle.load_state({name: _on(device, name, x) for name, x in checkpoint.rows.items()})
    widths = {site: source.width(site) for site in source.sites}
    trainees = []
    for name, job in plan.jobs.items():
        state = {key.removeprefix(f"{name}/"): x for key, x in checkpoint.state.items() if key.startswith(f"{name}/")}
        if not state:
            raise UserError(f"the checkpoint has no coder {name}; resume with the recipe that it was trained with")
        coder = _new_coder(job, source.places[name], widths, device)
        if ranks is not None:
            ranks.take_part(coder)
        objective = _objective(job, source, coder)
        trainees.append(resumed_trainee(name, coder, job.recipe.training, state, objective))
    return TrainingRun(plan, source, trainees, shuffle, checkpoint.step, checkpoint.facts["rows"], ranks)


def train_into(folder: Path, coder_folders: Mapping[str, Path], run: TrainingRun, watch: Watch) -> None:
    """Train to the end, or to Ctrl-C; metrics go into each coder's folder, checkpoints into the run's."""
    config = run.plan.recipe.training
    keeper = Keeper(folder / CHECKPOINTS, run, watch)
    started, rows_before = time.time(), run.n_rows
    with ExitStack() as stack:
        logs = []
        if process_number() == 0:
            logs = open_logs(stack, run.plan.recipe.logging, folder, coder_folders, run.plan, run.n_done)
        bar = stack.enter_context(watch.bar("training", config.rows))
        interrupt = stack.enter_context(stop_on_interrupt())
        for progress in loop.train(run.trainees, run.batches(), config, start=run.n_done):
            run.n_done, run.n_rows = progress.step + 1, progress.rows
            for log, (name, figures) in itertools.product(logs, progress.metrics.items()):
                log.write(name, progress.step, progress.rows, figures)
            speed = (run.n_rows - rows_before) / (time.time() - started)
            bar.at(min(run.n_rows, config.rows), **_live(progress, speed))
            keeper.look()
            if run.any_wish(interrupt.requested):
                break
    if run.n_done < config.n_steps:
        keeper.keep()
        watch.say(f"stopped after {run.n_rows:,} of {config.rows:,} rows; measuring as it is, `--resume` goes on")


def _new_coder(job: Job, places: Places, widths: Mapping[str, int], device: torch.device) -> SparseCoder:
    torch.manual_seed(job.recipe.seed)
    reads, writes = (tuple(Port(site, widths[site]) for site in sites) for sites in places)
    return architecture(job.coder_type)(job.coder, Wiring(reads, writes, job.recipe.skip)).to(device)


def _objective(job: Job, source: RowSource, coder: SparseCoder) -> Objective:
    config = job.recipe.objective
    return Spliced(config, source.bench().model, coder) if config.needs_model else LOCAL


def _stream(plan: Plan, source: RowSource, start: TextPosition) -> Iterator[Rows] | Iterator[Sequences]:
    """What is shuffled: rows, or whole sequences where the objective runs the model."""
    if not plan.recipe.objective.needs_model:
        return source.rows(start)
    assert isinstance(source, ModelRows), "a recipe has a cache or an objective that runs the model"
    return source.sequences(start)


def _shuffle(plan: Plan, source: RowSource, items: Iterator[Rows] | Iterator[Sequences], step: int) -> Shuffle:
    """This process' share of every batch from a step on, from a buffer of its own."""
    config, part = plan.recipe.training, source.part
    if config.batch % part.of:
        raise UserError(f"training.batch={config.batch} must be a multiple of the number of processes, {part.of}")
    per_item = plan.recipe.row_length * part.of
    batch = config.batch // per_item
    n_all, n_before = (batch * loop.batches_before(at, config) for at in (config.n_steps, step))
    n_buffer = max(2 * batch, min(config.buffer // per_item, n_all))
    generator = torch.Generator().manual_seed(plan.recipe.data_seed + _SEED_STEP * part.number)
    return Shuffle(items, n_buffer, batch, generator, n_all - n_before)


def _goes_on(after: list[list[int]], part: Part) -> TextPosition:
    """Where a process reads on, given where each of those that wrote a checkpoint would have."""
    if len(after) == part.of:
        return TextPosition(*after[part.number])
    furthest = max(document * len(after) + number for number, (document, _) in enumerate(after))
    return TextPosition(furthest // part.of + 1)


def _on(device: torch.device, name: str, x: Tensor) -> Tensor:
    is_row = name.startswith(("buffer.", "spill.")) and x.is_floating_point()
    return x.to(device) if is_row else x


def _live(progress: Progress, rows_per_second: float) -> dict[str, str]:
    """Live figures beside the bar: a number, or the range over several coders."""
    shown = {"L0": ("l0", "{:.0f}"), "EV": ("explained_variance", "{:.2f}"), "dead": ("dead_share", "{:.0%}")}
    figures = {}
    for title, (name, form) in shown.items():
        values = [figures[name] for figures in progress.metrics.values()]
        ends = dict.fromkeys(form.format(value) for value in (min(values), max(values)))
        figures[title] = " to ".join(ends)
    return figures | {"tokens/s": f"{rows_per_second:,.0f}"}
