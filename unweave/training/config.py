"""How coders are trained: the section ``[training]`` of a recipe."""

from dataclasses import dataclass

from unweave.errors import UserError


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
        if not all(0 < share < 1 for share in self.resample_at):
            raise UserError(f"training.resample_at holds shares of the run between 0 and 1, got {self.resample_at}")
        if self.resample_rows < 1:
            raise UserError(f"training.resample_rows must be at least 1, got {self.resample_rows}")
        if not 0 <= self.resample_warm_up <= 1:
            raise UserError(f"training.resample_warm_up must be in [0, 1], got {self.resample_warm_up}")

    @property
    def n_steps(self) -> int:
        return -(-self.rows // self.batch)
