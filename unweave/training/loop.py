"""The training loop: one `for` over shuffled batches, every coder of a list takes a step on each."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from torch import Tensor

from unweave.coders import SparseCoder
from unweave.coders.folding import fold_scaling
from unweave.errors import UserError
from unweave.training.config import TrainingConfig
from unweave.training.input_scale import estimate
from unweave.training.memory import freed_memory_kept
from unweave.training.objective import LOCAL, Batch, Objective, RowsBySite
from unweave.training.ranks import Ranks
from unweave.training.resampling import Draws, resample
from unweave.training.step import not_finite, take_step
from unweave.training.trainee import Trainee, part_of, saved_scalings, scaled
from unweave.training.warm_start import start_at

_SHARED = ("rows", "batch", "log_every", "resample_at", "resample_rows")
"""Settings that all coders of a run have in common, because they decide which rows are read, and when."""


@dataclass(frozen=True)
class Progress:
    """What the loop reports after a step that is logged."""

    step: int
    rows: int
    metrics: dict[str, dict[str, float]]
    """Coder name to its learning rate, its losses and its live figures on this batch."""


def new_trainee(
    name: str,
    coder: SparseCoder,
    sample: RowsBySite,
    config: TrainingConfig,
    ranks: Ranks | None = None,
    *,
    objective: Objective = LOCAL,
    start: SparseCoder | None = None,
) -> Trainee:
    """Set up a coder for training on rows like ``sample``: scale, data-dependent start, optimizer.

    ``start``: a finished coder that it starts as, in the place of a start from data. With ``ranks`` every process sets
    up the whole coder on the same sample and goes on with its part of it.
    """
    kind = coder.config.input_scale
    assert kind is not None
    reads = [estimate(sample[port.site], kind, port.site) for port in coder.wiring.reads]
    writes = [estimate(sample[port.site], kind, port.site) for port in coder.wiring.writes]
    if start is None:
        coder.start_from(*scaled(coder, sample, reads, writes))
    else:
        start_at(coder, start, reads, writes)
    if ranks is not None:
        ranks.take_part(coder)
    return Trainee(name, coder, config, reads, writes, objective)


def resumed_trainee(
    name: str, coder: SparseCoder, config: TrainingConfig, state: dict[str, Tensor], objective: Objective = LOCAL
) -> Trainee:
    """Set up a new coder to go on from ``Trainee.state()`` of one with the same settings, to the last bit."""
    try:
        coder.load_state_dict(part_of(state, "coder"))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the saved state does not fit coder {name}: {reason}; resume with its own settings") from error
    trainee = Trainee(name, coder, config, *saved_scalings(coder, state), objective)
    trainee.load_state(state)
    return trainee


def train(
    trainees: list[Trainee], batches: Iterable[Batch], config: TrainingConfig, *, start: int = 0
) -> Iterator[Progress]:
    """Train all coders for ``config.n_steps`` whole batches; yields a report every ``log_every`` steps and at the end.

    Each coder is trained by its own settings and comes out as if it had been trained alone; ``config`` decides which
    rows are read and when, where all must agree. A run goes on at step ``start`` with the batches from there, see
    ``batches_before``. A caller that stops iterating ends the training; the coders are whole after every step. Raises
    ``NotFinite`` with the step and the coder's name.
    """
    assert len({trainee.name for trainee in trainees}) == len(trainees), "coders in training need different names"
    for trainee in trainees:
        _check_agrees(trainee, config)
    if start >= config.n_steps:
        return
    resampling_steps = _resampling_steps(config)
    batches = iter(batches)
    with freed_memory_kept():
        for step, batch in enumerate(batches, start):
            if step in resampling_steps:
                _resample(trainees, islice(batches, _n_resampling_batches(config)), step)
            is_last = step + 1 >= config.n_steps
            is_logged = is_last or step % config.log_every == 0
            metrics = {t.name: take_step(t, batch, step, is_logged=is_logged) for t in trainees}
            if is_logged:
                yield Progress(step, (step + 1) * config.batch, metrics)
            if is_last:
                return


def batches_before(step: int, config: TrainingConfig) -> int:
    """How many batches ``train`` takes from its stream before the batch of a step, those for resampling included."""
    return step + _n_resampling_batches(config) * sum(at < step for at in _resampling_steps(config))


def finish(trainee: Trainee) -> SparseCoder:
    """The coder in units of the model's own activations, with averaged weights where asked for, ready for use."""
    if trainee.average is not None:
        trainee.average.put_into_coder()
    fold_scaling(trainee.coder, trainee.reads, trainee.writes)
    return trainee.coder.eval().requires_grad_(False)


def _check_agrees(trainee: Trainee, config: TrainingConfig) -> None:
    for name in _SHARED:
        own, shared = getattr(trainee.config, name), getattr(config, name)
        if own != shared:
            raise UserError(
                f"coders of one run need the same training.{name}: coder {trainee.name} has {own}, the run {shared}"
            )


def _resampling_steps(config: TrainingConfig) -> set[int]:
    return {int(share * config.n_steps) for share in config.resample_at}


def _n_resampling_batches(config: TrainingConfig) -> int:
    return -(-config.resample_rows // config.batch)


def _resample(trainees: list[Trainee], batches: Iterable[Batch], step: int) -> None:
    """Give dead latents new weights; the batches are taken even if there are none, so that coders do not interact."""
    draws = {t.name: Draws(t.dead.ids.shape[0], t.generator) for t in trainees if t.dead.look().shape[0] > 0}
    for batch in batches:
        for trainee in trainees:
            if trainee.name in draws:
                is_finite = draws[trainee.name].update(trainee.coder, *trainee.rows(batch))
                if not is_finite:
                    raise not_finite(trainee, batch, step)
    for trainee in trainees:
        if trainee.name in draws:
            dead = trainee.dead.ids
            resample(trainee.coder, trainee.optimizer, dead, draws[trainee.name])
            trainee.dead.revive(dead)
            if trainee.average is not None:
                trainee.average.restart_rows(dead)
            trainee.resampled = step / trainee.config.n_steps
