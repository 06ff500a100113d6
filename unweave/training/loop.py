"""The training loop: one `for` over shuffled batches, every coder of a list takes a step on each."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.coders import Moment, Port, SparseCoder
from unweave.coders.base import CoderStep
from unweave.coders.folding import Scaling, fold_scaling
from unweave.errors import UserError
from unweave.training.config import TrainingConfig
from unweave.training.dead_latents import DeadLatents
from unweave.training.input_scale import estimate
from unweave.training.optimizer import CoderAdam
from unweave.training.resampling import CUT, Draws, resample
from unweave.training.schedule import rate_factor

Batch = dict[str, Float[Tensor, "B _"]]
"""Site name to rows, all with the same B."""


@dataclass
class Trainee:
    """A coder in training, with its optimizer and counters."""

    name: str
    coder: SparseCoder
    reads: list[Scaling]
    """How rows are scaled at each site that the coder reads."""
    writes: list[Scaling]
    """How rows are scaled at each site that it writes."""
    optimizer: CoderAdam
    dead: DeadLatents
    resampled: float = -1.0
    """Share of the run after which dead latents were last resampled."""

    @property
    def sites(self) -> set[str]:
        wiring = self.coder.wiring
        return {port.site for port in wiring.reads + wiring.writes}

    def rows(self, batch: Batch) -> tuple[Float[Tensor, "B D_read"], Float[Tensor, "B D_write"]]:
        """What the coder reads and what it should write, scaled, sites side by side."""
        return _scaled(self.coder, batch, self.reads, self.writes)


@dataclass(frozen=True)
class Progress:
    """What the loop reports after a step that is logged."""

    step: int
    rows: int
    lr: float
    metrics: dict[str, dict[str, float]]
    """Coder name to its losses and its live figures on this batch."""


class NotFinite(UserError):
    """A step's loss or gradient was NaN or infinite; the coder's weights are still those of the step before."""


def new_trainee(name: str, coder: SparseCoder, sample: Batch, config: TrainingConfig) -> Trainee:
    """Set up a coder for training on rows like ``sample``: scale, data-dependent start, optimizer."""
    kind = coder.config.input_scale
    assert kind is not None
    reads = [estimate(sample[port.site], kind, port.site) for port in coder.wiring.reads]
    writes = [estimate(sample[port.site], kind, port.site) for port in coder.wiring.writes]
    coder.start_from(*_scaled(coder, sample, reads, writes))
    trained = {name for name, parameter in coder.named_parameters() if parameter.requires_grad}
    if config.resample_at and not {"W_enc", "b_enc", "W_dec"} <= trained:
        raise UserError(
            f"training.resample_at gives latents weights of their own, which coder {name} has not; leave it empty"
        )
    optimizer = CoderAdam(coder, (config.beta1, config.beta2))
    dead = DeadLatents(coder.n_latents, config.dead_window, coder.W_dec.device)
    return Trainee(name, coder, reads, writes, optimizer, dead)


def train(trainees: list[Trainee], batches: Iterable[Batch], config: TrainingConfig) -> Iterator[Progress]:
    """Train all coders for ``config.n_steps`` whole batches; yields a report every ``log_every`` steps and at the end.

    A caller that stops iterating ends the training; the coders are whole after every step. Raises ``NotFinite`` with
    the step and the coder's name.
    """
    assert len({trainee.name for trainee in trainees}) == len(trainees), "coders in training need different names"
    n_rows = 0
    generator = torch.Generator().manual_seed(0)
    batches = iter(batches)
    for step, batch in enumerate(batches):
        if any(step == int(share * config.n_steps) for share in config.resample_at):
            _resample(trainees, islice(batches, -(-config.resample_rows // config.batch)), step, config, generator)
        n_rows += next(iter(batch.values())).shape[0]
        is_last = step + 1 >= config.n_steps
        is_logged = is_last or step % config.log_every == 0
        metrics = {t.name: take_step(t, batch, step, config, is_logged=is_logged) for t in trainees}
        if is_logged:
            factor = rate_factor((step + 1) / config.n_steps, config.warm_up, config.decay)
            yield Progress(step, n_rows, config.lr * factor, metrics)
        if is_last:
            return


def take_step(
    trainee: Trainee, batch: Batch, step: int, config: TrainingConfig, *, is_logged: bool
) -> dict[str, float]:
    """One step of one coder; returns its live figures where the step is logged, which makes a GPU wait."""
    coder, progress = trainee.coder, step / config.n_steps
    x_BD, y_BD = trainee.rows(batch)
    result = coder.loss(x_BD, y_BD, Moment(progress, trainee.dead.ids))
    torch.stack(list(result.losses.values())).sum().backward()
    norm = trainee.optimizer.step(_rate(trainee, step, config), config.clip)
    if (is_logged or norm.device.type == "cpu") and not bool(norm.isfinite()):
        raise _not_finite(trainee, batch, step)
    trainee.dead.update(result.codes)
    return _live_figures(trainee, y_BD, result) if is_logged else {}


def finish(trainee: Trainee) -> SparseCoder:
    """The coder in units of the model's own activations, ready for use."""
    fold_scaling(trainee.coder, trainee.reads, trainee.writes)
    return trainee.coder.eval().requires_grad_(False)


def _scaled(coder: SparseCoder, batch: Batch, reads: list[Scaling], writes: list[Scaling]) -> tuple[Tensor, Tensor]:
    x_BD = _side_by_side(batch, coder.wiring.reads, reads, coder.W_dec.dtype)
    if coder.wiring.writes_what_it_reads:
        return x_BD, x_BD
    return x_BD, _side_by_side(batch, coder.wiring.writes, writes, coder.W_dec.dtype)


def _side_by_side(batch: Batch, ports: tuple[Port, ...], scalings: list[Scaling], dtype: torch.dtype) -> Tensor:
    parts = [scaling(batch[port.site].to(dtype)) for port, scaling in zip(ports, scalings, strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _rate(trainee: Trainee, step: int, config: TrainingConfig) -> float:
    factor = rate_factor((step + 1) / config.n_steps, config.warm_up, config.decay)
    if trainee.resampled >= 0 and config.resample_warm_up > 0:
        risen = (step / config.n_steps - trainee.resampled) / config.resample_warm_up
        factor *= min(1.0, CUT + (1 - CUT) * risen)
    return config.lr * factor


def _resample(
    trainees: list[Trainee], batches: Iterable[Batch], step: int, config: TrainingConfig, generator: torch.Generator
) -> None:
    draws = {t.name: Draws(t.dead.look().shape[0], generator) for t in trainees if t.dead.look().shape[0] > 0}
    for batch in batches if draws else ():
        for trainee in trainees:
            if trainee.name in draws:
                is_finite = draws[trainee.name].update(trainee.coder, *trainee.rows(batch))
                if not is_finite:
                    raise _not_finite(trainee, batch, step)
    for trainee in trainees:
        if trainee.name in draws:
            dead = trainee.dead.ids
            resample(trainee.coder, trainee.optimizer, dead, draws[trainee.name])
            trainee.dead.revive(dead)
            trainee.resampled = step / config.n_steps


def _not_finite(trainee: Trainee, batch: Batch, step: int) -> NotFinite:
    for site in sorted(trainee.sites):
        n_bad = int((~batch[site].isfinite().all(dim=1)).sum())
        if n_bad:
            return NotFinite(
                f"step {step}, coder {trainee.name}: activations at {site} hold NaN or infinity in {n_bad} of "
                f"{batch[site].shape[0]} rows; check the model's precision and its text"
            )
    return NotFinite(f"step {step}, coder {trainee.name}: the loss is not finite; lower training.lr")


@torch.no_grad()
def _live_figures(trainee: Trainee, y_BD: Tensor, result: CoderStep) -> dict[str, float]:
    error = (y_BD - result.reconstruction).square().sum().item()
    spread = (y_BD - y_BD.mean(0)).square().sum().item()
    figures = {name: loss.item() for name, loss in result.losses.items()}
    return figures | {
        "l0": int((result.codes.values != 0).sum()) / y_BD.shape[0],
        "explained_variance": 1.0 - error / spread,
        "dead_share": trainee.dead.share,
    }
