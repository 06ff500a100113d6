"""k that falls while a coder is trained, so that latents meet many rows before they have to compete for them.

With ``k_start`` the number of active latents falls linearly from there to ``k`` over the first ``k_share`` of the run,
rounded where it is the number of each row; "k annealing", as OpenMOSS's Language-Model-SAEs does. In use it is ``k``.
"""

from dataclasses import dataclass

from unweave.coders.base import PUBLISHED
from unweave.coders.dead_loss import AuxKConfig
from unweave.errors import UserError


@dataclass(frozen=True, kw_only=True)
class FallingKConfig(AuxKConfig):
    """Settings of architectures with AuxK and a k that may fall during training."""

    k: int | float = 32
    """Active latents per row."""
    k_start: int | None = None
    """Active latents per row at the start of training, from where they fall to k; not given: always k."""
    k_share: float | None = PUBLISHED
    """Share of the run over which they fall; 0.1 if not given."""

    def __post_init__(self) -> None:
        if self.k_start is not None:
            self._fill(k_share=0.1)
        super().__post_init__()
        if not 0 < self.k <= self.n_latents:
            raise UserError(f"coder.k needs 0 < k <= n_latents, got k={self.k:g} with n_latents={self.n_latents}")
        if self.k_start is None:
            if self.k_share is not None:
                raise UserError(f"coder.k_share={self.k_share} has no effect without coder.k_start")
            return
        if not self.k < self.k_start <= self.n_latents:
            raise UserError(
                f"coder.k_start needs k < k_start <= n_latents, got k_start={self.k_start} with k={self.k:g} and "
                f"n_latents={self.n_latents}"
            )
        assert self.k_share is not None
        if not 0 < self.k_share <= 1:
            raise UserError(f"coder.k_share is a share of the run in (0, 1], got {self.k_share}")


def k_at(config: FallingKConfig, progress: float) -> int | float:
    """The number of active latents per row when a share ``progress`` of the run is done."""
    if config.k_start is None or config.k_share is None or progress >= config.k_share:
        return config.k
    return config.k_start + (config.k - config.k_start) * progress / config.k_share


def whole_k_at(config: FallingKConfig, progress: float) -> int:
    """The same as a whole number."""
    return round(k_at(config, progress))
