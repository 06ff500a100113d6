"""TopK: keep the k largest activations of each row (Gao et al. 2024, arXiv 2406.04093).

With h = (x - b_dec) W_enc^T + b_enc, f keeps the k largest positive entries of h in each row and y_hat = f W_dec +
b_dec. Loss: |y - y_hat|^2 summed over D and averaged over B, plus AuxK for dead latents. Multi-TopK adds the same error
with ``multi_k`` times as many latents at an eighth of the weight, so that the coder also works at other k.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.coders.base import CoderStep, Moment, SparseCoder, mean_squared_error
from unweave.coders.dead_loss import aux_losses
from unweave.coders.k_schedule import FallingKConfig, whole_k_at
from unweave.errors import UserError
from unweave.kernels.selection import TopKOfRow, narrow
from unweave.types import Codes


@dataclass(frozen=True, kw_only=True)
class TopKConfig(FallingKConfig):
    """Settings of a TopK coder."""

    k: int = 32
    """Active latents per row."""
    multi_k: int = 0
    """Multi-TopK: also reconstruct with so many times k latents (the paper: 4); 0 turns it off."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.multi_k == 1 or self.multi_k < 0:
            raise UserError(f"coder.multi_k must be 0 or at least 2, got {self.multi_k}")


@final
class TopK(SparseCoder):
    """See the module's docstring for the maths."""

    Config = TopKConfig
    reconstruction_losses = ("mse", "multi")
    config: TopKConfig
    splits_latents = True
    per_latent = ()  # rescaling one latent would change which are the largest

    @torch.no_grad()
    def encode(self, x_BD: Float[Tensor, "B D"]) -> Codes:
        return self.active(x_BD, TopKOfRow(self.config.k))

    def loss(self, x_BD: Float[Tensor, "B D_read"], y_BD: Float[Tensor, "B D_write"], moment: Moment) -> CoderStep:
        k = whole_k_at(self.config, moment.progress)
        many = min(self.config.n_latents, max(1, self.config.multi_k) * k)
        wide = self.active(x_BD, TopKOfRow(many))
        codes = self.peers.choose(narrow(wide, TopKOfRow(k)), TopKOfRow(k)) if many > k else wide
        y_hat_BD = self.reconstruct(codes, x_BD)
        losses = {"mse": mean_squared_error(y_hat_BD, y_BD)}
        if many > k:
            losses["multi"] = mean_squared_error(self.reconstruct(wide, x_BD), y_BD) / 8
        losses |= aux_losses(self, x_BD, y_BD, y_hat_BD, moment)
        return CoderStep(losses, codes, y_hat_BD)
