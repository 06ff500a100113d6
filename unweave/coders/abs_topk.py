"""AbsTopK: keep the k activations of each row that are largest in magnitude, with their sign (arXiv 2510.00404).

With h = (x - b_dec) W_enc^T + b_enc, f keeps the k entries of each row with the largest |h|, negative ones too, and
y_hat = f W_dec + b_dec. So one latent serves a direction and its opposite, such as "male" and "female", for which TopK
needs two. Loss: |y - y_hat|^2 summed over D and averaged over B, plus AuxK for dead latents, which picks the dead
latents by |h| as well.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.coders.base import CoderStep, Moment, SparseCoder, mean_squared_error
from unweave.coders.dead_loss import aux_losses
from unweave.coders.k_schedule import FallingKConfig, whole_k_at
from unweave.kernels.selection import TopKOfRow
from unweave.types import Codes


@dataclass(frozen=True, kw_only=True)
class AbsTopKConfig(FallingKConfig):
    """Settings of an AbsTopK coder."""

    k: int = 32
    """Active latents per row, of either sign."""


@final
class AbsTopK(SparseCoder):
    """See the module's docstring for the maths."""

    Config = AbsTopKConfig
    splits_latents = True
    config: AbsTopKConfig
    per_latent = ()  # rescaling one latent would change which are the largest

    @torch.no_grad()
    def encode(self, x_BD: Float[Tensor, "B D"]) -> Codes:
        return self.active(x_BD, TopKOfRow(self.config.k, signed=True))

    def loss(self, x_BD: Float[Tensor, "B D_read"], y_BD: Float[Tensor, "B D_write"], moment: Moment) -> CoderStep:
        codes = self.active(x_BD, TopKOfRow(whole_k_at(self.config, moment.progress), signed=True))
        y_hat_BD = self.reconstruct(codes, x_BD)
        losses = {"mse": mean_squared_error(y_hat_BD, y_BD)}
        losses |= aux_losses(self, x_BD, y_BD, y_hat_BD, moment, signed=True)
        return CoderStep(losses, codes, y_hat_BD)
