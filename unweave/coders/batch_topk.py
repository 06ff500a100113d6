"""BatchTopK: keep the B*k largest activations of the whole batch (Bussmann, Leask and Nanda 2024, arXiv 2412.06410).

With h = (x - b_dec) W_enc^T + b_enc, training keeps the B*k largest positive entries of h over the batch, so a hard
row may use more latents than an easy one. In use, a row must not depend on its neighbours: an entry is active when
h > threshold, where the threshold is the running mean of the smallest value that training kept.

Loss: |x - x_hat|^2 summed over D and averaged over B, plus AuxK (Gao et al. 2024, arXiv 2406.04093): the ``k_aux``
largest positive pre-activations among dead latents reconstruct the error e = x - x_hat as e_hat, and
``aux_coefficient * |x - mean(x)|^2 * |e - e_hat|^2 / |e - mean(e)|^2`` is added, which is the paper's sum of two
normalised errors times the variance of x.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.coders.base import CoderConfig, CoderStep, Moment, SparseCoder
from unweave.errors import UserError
from unweave.kernels.selection import above_threshold, top_k_of_batch, top_k_of_row
from unweave.kernels.sparse_decode import sparse_decode
from unweave.kernels.sparse_encode import active_preactivations
from unweave.types import Codes


@dataclass(frozen=True, kw_only=True)
class BatchTopKConfig(CoderConfig):
    """Settings of a BatchTopK coder."""

    k: int = 32
    """Mean number of active latents per row."""
    aux_coefficient: float = 1 / 32
    """Weight of the loss that revives dead latents."""
    k_aux: int = 64
    """Dead latents per row that take part in that loss; about a quarter to half of the site's width."""
    threshold_decay: float = 0.95
    """How slowly the threshold for use follows training, per step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.k <= self.n_latents:
            raise UserError(f"coder.k needs 0 < k <= n_latents, got k={self.k} with n_latents={self.n_latents}")
        if self.k_aux < 1:
            raise UserError(f"coder.k_aux must be at least 1, got {self.k_aux}; set aux_coefficient=0 to turn AuxK off")
        if self.aux_coefficient < 0:
            raise UserError(f"coder.aux_coefficient must not be negative, got {self.aux_coefficient}")
        if not 0 <= self.threshold_decay < 1:
            raise UserError(f"coder.threshold_decay must be in [0, 1), got {self.threshold_decay}")


@final
class BatchTopK(SparseCoder):
    """See the module's docstring for the maths."""

    Config = BatchTopKConfig
    scales_with_input = ("b_enc", "b_dec", "threshold")
    config: BatchTopKConfig
    threshold: Tensor

    def __init__(self, config: BatchTopKConfig, d_model: int) -> None:
        super().__init__(config, d_model)
        self.register_buffer("threshold", torch.tensor(0.0))

    def encode(self, x_BD: Float[Tensor, "B D"]) -> Codes:
        return above_threshold(self.preactivations(x_BD), self.threshold)

    def loss(self, x_BD: Float[Tensor, "B D"], moment: Moment) -> CoderStep:
        pre_BL = self.preactivations(x_BD)
        codes = self.with_gradient(top_k_of_batch(pre_BL, self.config.k), x_BD)
        self._follow_threshold(codes.values.detach())
        x_hat_BD = self.decode(codes)
        losses = {"mse": (x_hat_BD - x_BD).square().sum(1).mean()}
        if self.config.aux_coefficient > 0 and bool(moment.dead_L.any()):
            error_BD = (x_BD - x_hat_BD).detach()
            losses["aux"] = self.config.aux_coefficient * self._aux_loss(x_BD, pre_BL, error_BD, moment.dead_L)
        return CoderStep(losses, codes, x_hat_BD)

    @torch.no_grad()
    def _follow_threshold(self, kept: Float[Tensor, " E"]) -> None:
        if kept.shape[0] == 0:
            return
        smallest = kept.min()
        followed = self.threshold.lerp(smallest, 1.0 - self.config.threshold_decay)
        self.threshold.copy_(torch.where(self.threshold > 0, followed, smallest))

    def _aux_loss(self, x_BD: Tensor, pre_BL: Tensor, error_BD: Tensor, dead_L: Tensor) -> Tensor:
        """Dead latents explain the error; their gradient reaches the encoder as well as the decoder."""
        dead = dead_L.nonzero().flatten()
        codes = top_k_of_row(pre_BL[:, dead], min(self.config.k_aux, dead.shape[0]))
        values = active_preactivations(codes, x_BD - self.b_dec.detach(), self.W_enc[dead], self.b_enc[dead])
        error_hat_BD = sparse_decode(codes.with_values(values), self.W_dec[dead])
        spread = (error_BD - error_BD.mean(0)).square().sum().clamp(min=1e-12)
        size = (x_BD - x_BD.mean(0)).square().sum(1).mean()
        return size * (error_BD - error_hat_BD).square().sum() / spread
