"""How coders are trained: the section ``[training]`` of a recipe."""

from dataclasses import dataclass, fields
from typing import Literal

from unweave.errors import UserError

_WITHOUT_EFFECT = {"sign_sgd": ("beta1", "beta2", "clip")}
"""Settings that an optimizer does not read."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How coders are trained."""

    rows: int = 1_000_000
    """Rows (content tokens) to train on; the text is read again from the start where it is shorter."""
    batch: int = 2048
    """Rows per step."""
    accumulate: int = 1
    """Parts of a step's rows that are computed one after another to save memory; their gradients add up. What couples
    rows does so within a part: BatchTopK's selection, the variance that AuxK divides by, Switch's balance."""
    latent_parts: int = 1
    """Processes over which each coder's latents are spread; divides the number of processes that torchrun starts, of
    which the other factor spreads a step's rows."""
    optimizer: Literal["adam", "adamw", "sign_sgd", "muon"] = "adam"
    """adam (Kingma and Ba 2015), adamw (with weight_decay), sign_sgd (Bernstein et al. 2018: every number moves by the
    learning rate) or muon (Jordan 2024: matrices move by orthogonalised momentum, the rest by adam)."""
    lr: float = 1e-3
    """Peak learning rate."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls over the share ``decay``; constant needs decay=0."""
    warm_up: float = 0.02
    """Share of the run over which the learning rate rises from 0; of each cycle where there are restarts."""
    decay: float = 0.2
    """Share of the run at its end over which the learning rate falls to 0; of each cycle where there are restarts."""
    restarts: int = 0
    """How many more times the cycle of warm-up and decay is repeated within the run (Loshchilov and Hutter 2017)."""
    beta1: float = 0.9
    """Decay of the mean gradient, which is also muon's momentum. At 0 adam and adamw keep no mean, and adam does not
    visit the rows of latents that have no gradient in a step, with the same result."""
    beta2: float = 0.999
    """Decay of the mean squared gradient."""
    weight_decay: float = 0.0
    """Share of every parameter, times the learning rate, that a step of adamw takes away (Loshchilov and Hutter 2019);
    decoder rows of unit norm keep it."""
    clip: float = 1.0
    """Largest norm of a step's gradient; longer ones are scaled down. 0 turns clipping off."""
    average: float = 0.0
    """Decay per step of a running mean of the weights, which the finished coder gets in place of the last weights; for
    example 0.999. 0 turns it off."""
    dead_window: int = 200_000
    """A latent that was silent for so many rows is dead."""
    resample_at: tuple[float, ...] = ()
    """Shares of the run after which dead latents are resampled (Bricken et al. 2023: 0.125, 0.25, 0.375, 0.5)."""
    resample_rows: int = 819_200
    """Rows whose loss decides what resampled latents become; they are not trained on."""
    resample_warm_up: float = 0.01
    """Share of the run over which the learning rate rises again from a tenth after resampling."""
    buffer: int = 131_072
    """Rows in the shuffle buffer."""
    log_every: int = 10
    """Steps between two lines of metrics.jsonl."""

    def __post_init__(self) -> None:
        for name in ("rows", "batch", "latent_parts", "lr", "dead_window", "buffer", "log_every"):
            if not getattr(self, name) > 0:
                raise UserError(f"training.{name} must be more than 0, got {getattr(self, name)}")
        for name in ("weight_decay", "restarts"):
            if not getattr(self, name) >= 0:
                raise UserError(f"training.{name} must not be negative, got {getattr(self, name)}")
        for name in ("beta1", "beta2", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"training.{name} must be in [0, 1), got {getattr(self, name)}")
        if self.buffer < 2 * self.batch:
            raise UserError(f"training.buffer needs at least 2 batches of {self.batch} rows, got {self.buffer}")
        if not 0 < self.accumulate <= self.batch:
            raise UserError(f"training.accumulate must be in 1..{self.batch} (batch), got {self.accumulate}")
        if not self.clip >= 0:
            raise UserError(f"training.clip must not be negative, got {self.clip}; 0 turns clipping off")
        self._check_resampling()
        self._check_schedule()
        self._check_optimizer()

    @property
    def n_steps(self) -> int:
        return -(-self.rows // self.batch)

    def _check_resampling(self) -> None:
        if not all(0 < share < 1 for share in self.resample_at):
            raise UserError(f"training.resample_at holds shares of the run between 0 and 1, got {self.resample_at}")
        if self.resample_rows < 1:
            raise UserError(f"training.resample_rows must be at least 1, got {self.resample_rows}")
        if not 0 <= self.resample_warm_up <= 1:
            raise UserError(f"training.resample_warm_up must be in [0, 1], got {self.resample_warm_up}")

    def _check_schedule(self) -> None:
        if self.warm_up < 0 or self.decay < 0 or self.warm_up + self.decay > 1:
            raise UserError(f"training.warm_up + training.decay must lie in [0, 1], got {self.warm_up} + {self.decay}")
        if self.schedule == "constant" and self.decay > 0:
            raise UserError(f'training.schedule="constant" needs training.decay=0, got {self.decay}')
        if self.schedule == "cosine" and self.decay == 0:
            raise UserError('training.schedule="cosine" has no effect with training.decay=0; 0.98 is usual')
        if self.restarts and self.warm_up == 0 and self.decay == 0:
            raise UserError(f"training.restarts={self.restarts} has no effect without training.warm_up or decay")

    def _check_optimizer(self) -> None:
        if self.weight_decay > 0 and self.optimizer != "adamw":
            raise UserError(f'training.weight_decay needs training.optimizer="adamw", got "{self.optimizer}"')
        if self.optimizer == "adamw" and self.weight_decay == 0:
            raise UserError('training.optimizer="adamw" needs training.weight_decay above 0; without it, it is "adam"')
        defaults = {field.name: field.default for field in fields(self)}
        for name in _WITHOUT_EFFECT.get(self.optimizer, ()):
            value = getattr(self, name)
            if value != defaults[name]:
                raise UserError(
                    f'training.{name}={value} has no effect with training.optimizer="{self.optimizer}"; leave it out'
                )
