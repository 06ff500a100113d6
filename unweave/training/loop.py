"""The training loop: one `for` over shuffled batches, every coder of a list takes a step on each."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.coders import Moment, SparseCoder
from unweave.coders.base import CoderStep
from unweave.errors import UserError
from unweave.training.dead_latents import DeadLatents
from unweave.training.decoder_norm import remove_radial_gradient, renormalise
from unweave.training.schedule import rate_factor


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How coders are trained."""

    rows: int = 1_000_000
    """Rows (content tokens) to train on; the text is read again from the start where it is shorter."""
    batch: int = 2048
    """Rows per step."""
    lr: float = 1e-3
    """Peak learning rate of Adam."""
    warm_up: float = 0.02
    """Share of the run over which the learning rate rises from 0."""
    decay: float = 0.2
    """Share of the run at its end over which the learning rate falls to 0."""
    beta1: float = 0.9
    """Adam's decay of the mean gradient."""
    beta2: float = 0.999
    """Adam's decay of the mean squared gradient."""
    clip: float = 1.0
    """Largest norm of a step's gradient; longer ones are scaled down. 0 turns clipping off."""
    dead_window: int = 200_000
    """A latent that was silent for so many rows is dead."""
    buffer: int = 131_072
    """Rows in the shuffle buffer."""
    log_every: int = 10
    """Steps between two lines of metrics.jsonl."""

    def __post_init__(self) -> None:
        for name in ("rows", "batch", "lr", "dead_window", "buffer", "log_every"):
            if not getattr(self, name) > 0:
                raise UserError(f"training.{name} must be more than 0, got {getattr(self, name)}")
        if self.buffer < 2 * self.batch:
            raise UserError(f"training.buffer needs at least 2 batches of {self.batch} rows, got {self.buffer}")
        if not self.clip >= 0:
            raise UserError(f"training.clip must not be negative, got {self.clip}; 0 turns clipping off")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"training.{name} must be in [0, 1), got {getattr(self, name)}")
        if self.warm_up < 0 or self.decay < 0 or self.warm_up + self.decay > 1:
            raise UserError(f"training.warm_up + training.decay must lie in [0, 1], got {self.warm_up} + {self.decay}")

    @property
    def n_steps(self) -> int:
        return -(-self.rows // self.batch)


@dataclass
class Trainee:
    """A coder in training, with its optimizer and counters."""

    name: str
    site: str
    coder: SparseCoder
    input_scale: float
    """Factor on the rows before the coder sees them."""
    optimizer: torch.optim.Optimizer
    dead: DeadLatents


@dataclass(frozen=True)
class Progress:
    """What the loop reports after a step that is logged."""

    step: int
    rows: int
    lr: float
    metrics: dict[str, dict[str, float]]
    """Coder name to its losses and its live figures on this batch."""


def new_trainee(
    name: str, site: str, coder: SparseCoder, sample: Float[Tensor, "B D"], config: TrainingConfig
) -> Trainee:
    """Set up a coder for training on rows like ``sample``: scale, data-dependent start, optimizer.

    Rows are scaled to a mean square norm of 1 about their mean, so that losses and penalties mean the same for any
    model.
    """
    spread = (sample - sample.mean(0)).square().sum(1).mean().sqrt().item()
    if not 0 < spread < float("inf"):
        raise UserError(
            f"activations at {site} have a spread of {spread}; check the model and its text for NaN or empty rows"
        )
    coder.start_from(sample / spread)
    optimizer = torch.optim.Adam(coder.parameters(), lr=config.lr, betas=(config.beta1, config.beta2), fused=True)
    dead = DeadLatents(coder.n_latents, config.dead_window, coder.W_dec.device)
    return Trainee(name, site, coder, 1.0 / spread, optimizer, dead)


def train(
    trainees: list[Trainee], batches: Iterable[dict[str, Float[Tensor, "B _"]]], config: TrainingConfig
) -> Iterator[Progress]:
    """Train all coders for ``config.n_steps`` whole batches; yields a report every ``log_every`` steps and at the end.

    A caller that stops iterating ends the training; the coders are whole after every step.
    """
    assert len({trainee.name for trainee in trainees}) == len(trainees), "coders in training need different names"
    n_rows = 0
    for step, batch in enumerate(batches):
        progress = step / config.n_steps
        factor = rate_factor((step + 1) / config.n_steps, config.warm_up, config.decay)
        rows = {t.name: batch[t.site].to(t.coder.W_dec.dtype) * t.input_scale for t in trainees}
        results = {t.name: _step(t, rows[t.name], progress, config, factor) for t in trainees}
        n_rows += next(iter(batch.values())).shape[0]
        is_last = step + 1 >= config.n_steps
        if is_last or step % config.log_every == 0:
            metrics = {t.name: _live_figures(t, rows[t.name], results[t.name]) for t in trainees}
            yield Progress(step, n_rows, config.lr * factor, metrics)
        if is_last:
            return


def finish(trainee: Trainee) -> SparseCoder:
    """The coder in units of the model's own activations, ready for use."""
    trainee.coder.fold_input_scale(trainee.input_scale)
    return trainee.coder.eval().requires_grad_(False)


def _step(trainee: Trainee, x_BD: Tensor, progress: float, config: TrainingConfig, factor: float) -> CoderStep:
    coder = trainee.coder
    result = coder.loss(x_BD, Moment(progress, trainee.dead.mask))
    total = torch.stack(list(result.losses.values())).sum()
    trainee.optimizer.zero_grad()
    total.backward()
    remove_radial_gradient(coder)
    if config.clip > 0:
        torch.nn.utils.clip_grad_norm_(coder.parameters(), config.clip)
    for group in trainee.optimizer.param_groups:
        group["lr"] = config.lr * factor
    trainee.optimizer.step()
    renormalise(coder)
    trainee.dead.update(result.codes)
    return result


@torch.no_grad()
def _live_figures(trainee: Trainee, x_BD: Tensor, result: CoderStep) -> dict[str, float]:
    error = (x_BD - result.reconstruction).square().sum().item()
    spread = (x_BD - x_BD.mean(0)).square().sum().item()
    figures = {name: loss.item() for name, loss in result.losses.items()}
    if not all(map(_is_finite, figures.values())):
        raise UserError(f"the loss of {trainee.name} is not finite; lower training.lr or check the activations for NaN")
    return figures | {
        "l0": result.codes.values.shape[0] / x_BD.shape[0],
        "explained_variance": 1.0 - error / spread,
        "dead_share": trainee.dead.share,
    }


def _is_finite(value: float) -> bool:
    return value - value == 0.0
