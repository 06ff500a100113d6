"""GroupMax: split the latents into k groups and keep the largest of each (EleutherAI's sparsify, 2025).

With h = (x - b_dec) W_enc^T + b_enc, the latents fall into k runs of n_latents / k neighbours. f keeps the largest
entry of each run where it is positive, so at most k are active; the first wins a tie. y_hat = f W_dec + b_dec. No
selection over the whole row is needed, and a latent competes with its group alone, so fewer die than under TopK.
Loss: |y - y_hat|^2 summed over D and averaged over B, plus AuxK for dead latents, over all groups at once.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.coders.base import CoderStep, Moment, SparseCoder, mean_squared_error
from unweave.coders.dead_loss import AuxKConfig, aux_losses
from unweave.errors import UserError
from unweave.kernels.selection import GroupMax as LargestOfGroup
from unweave.types import Codes


@dataclass(frozen=True, kw_only=True)
class GroupMaxConfig(AuxKConfig):
    """Settings of a GroupMax coder."""

    k: int = 32
    """Groups of latents, each of which has at most one active latent per row; a divisor of n_latents."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.k <= self.n_latents:
            raise UserError(f"coder.k needs 0 < k <= n_latents, got k={self.k} with n_latents={self.n_latents}")
        if self.n_latents % self.k:
            raise UserError(f"coder.k must divide n_latents, got k={self.k} with n_latents={self.n_latents}")


@final
class GroupMax(SparseCoder):
    """See the module's docstring for the maths."""

    Config = GroupMaxConfig
    config: GroupMaxConfig
    per_latent = ()  # rescaling one latent would change which is the largest of its group

    @torch.no_grad()
    def encode(self, x_BD: Float[Tensor, "B D"]) -> Codes:
        return self.active(x_BD, LargestOfGroup(self.config.k))

    def loss(self, x_BD: Float[Tensor, "B D_read"], y_BD: Float[Tensor, "B D_write"], moment: Moment) -> CoderStep:
        codes = self.active(x_BD, LargestOfGroup(self.config.k))
        y_hat_BD = self.reconstruct(codes, x_BD)
        losses = {"mse": mean_squared_error(y_hat_BD, y_BD)}
        losses |= aux_losses(self, x_BD, y_BD, y_hat_BD, moment)
        return CoderStep(losses, codes, y_hat_BD)
