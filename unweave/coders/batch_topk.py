"""BatchTopK: keep the B*k largest activations of the whole batch (Bussmann, Leask and Nanda 2024, arXiv 2412.06410).

With h = (x - b_dec) W_enc^T + b_enc, training keeps the B*k largest positive entries of h over the batch, so a hard
row may use more latents than an easy one. In use, a row must not depend on its neighbours: an entry is active when
h > threshold, where the threshold is the running mean of the smallest value that training kept.

Loss: |y - y_hat|^2 summed over D and averaged over B, plus AuxK for dead latents.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.coders.base import CoderStep, Moment, SparseCoder, mean_squared_error
from unweave.coders.dead_loss import aux_losses
from unweave.coders.k_schedule import FallingKConfig, k_at
from unweave.coders.peers import Peers
from unweave.coders.wiring import Wiring
from unweave.errors import UserError
from unweave.kernels.selection import Above, TopKOfBatch
from unweave.types import Codes


@dataclass(frozen=True, kw_only=True)
class BatchTopKConfig(FallingKConfig):
    """Settings of a BatchTopK coder."""

    k: int | float = 32
    """Mean number of active latents per row."""
    threshold_decay: float = 0.95
    """How slowly the threshold for use follows training, per step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.threshold_decay < 1:
            raise UserError(f"coder.threshold_decay must be in [0, 1), got {self.threshold_decay}")


@final
class BatchTopK(SparseCoder):
    """See the module's docstring for the maths."""

    Config = BatchTopKConfig
    in_activation_units = ("b_enc", "threshold")
    splits_latents = True
    per_latent = ()  # one threshold for all
    config: BatchTopKConfig
    threshold: Tensor

    def __init__(self, config: BatchTopKConfig, wiring: Wiring) -> None:
        super().__init__(config, wiring)
        self.register_buffer("threshold", torch.tensor(0.0))

    @torch.no_grad()
    def encode(self, x_BD: Float[Tensor, "B D"]) -> Codes:
        return self.active(x_BD, Above(self.threshold))

    def loss(self, x_BD: Float[Tensor, "B D_read"], y_BD: Float[Tensor, "B D_write"], moment: Moment) -> CoderStep:
        codes = self.active(x_BD, TopKOfBatch(k_at(self.config, moment.progress)))
        follow_threshold(self.threshold, codes, self.config.threshold_decay, self.peers)
        y_hat_BD = self.reconstruct(codes, x_BD)
        losses = {"mse": mean_squared_error(y_hat_BD, y_BD)}
        losses |= aux_losses(self, x_BD, y_BD, y_hat_BD, moment)
        return CoderStep(losses, codes, y_hat_BD)


@torch.no_grad()
def follow_threshold(threshold: Float[Tensor, ""], codes: Codes, decay: float, peers: Peers) -> None:
    """Move the running mean of the smallest value that was kept, in place; it starts at the first such value."""
    positive = torch.where(codes.values > 0, codes.values, torch.inf)
    smallest = peers.least(positive.min() if positive.shape[0] else torch.full_like(threshold, torch.inf))
    moved = torch.where(threshold > 0, threshold.lerp(smallest, 1.0 - decay), smallest)
    threshold.copy_(torch.where(smallest.isfinite(), moved, threshold))
