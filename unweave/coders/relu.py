"""ReLU with an L1 penalty, in the two published forms.

``2023`` (Bricken et al. 2023, "Towards Monosemanticity"): f = relu((x - b_dec) W_enc^T + b_enc), y_hat = f W_dec +
b_dec, L = |y - y_hat|^2 + l1_coefficient * sum_i f_i, the first summed over D, both averaged over B. Decoder rows are
kept at unit norm, so that the penalty cannot be escaped by shrinking f and growing W_dec.

``april_2024`` (Conerly et al. 2024, "Update on how we train SAEs"): decoder rows are free and the penalty is
sum_i f_i |w_i|; the input is not centred, rows are scaled to a mean norm of sqrt(D), decoder rows start with norm 0.1.

The penalty rises linearly from 0 over the first ``l1_warm_up`` of the run. ``ghost_grads`` adds the loss of
``ghost_grads.py`` for dead latents; neither form recommends it.
"""

from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.coders.base import PUBLISHED, CoderConfig, CoderStep, Moment, SparseCoder, mean_squared_error, warm_up
from unweave.coders.ghost_grads import ghost_losses
from unweave.errors import UserError
from unweave.kernels.latent_values import latent_values
from unweave.kernels.selection import Above
from unweave.types import Codes


@dataclass(frozen=True, kw_only=True)
class ReluConfig(CoderConfig):
    """Settings of a ReLU coder."""

    variant: Literal["2023", "april_2024"] = "2023"
    """Which published form: 2023 (unit decoder rows) or april_2024 (penalty counts the norm of decoder rows)."""
    l1_coefficient: float = PUBLISHED
    """Weight of the sparsity penalty; higher means fewer active latents. Default 0.1 (2023) or 5 (april_2024)."""
    l1_warm_up: float = 0.05
    """Share of the run over which the penalty rises from 0."""
    ghost_grads: bool = False
    """Whether dead latents learn by ghost grads, to replicate coders of early 2024."""

    def __post_init__(self) -> None:
        if self.variant == "april_2024":
            self._fill(decoder_norm="free", centre=False, input_scale="sqrt_width", bias_start="zero")
            self._fill(decoder_init_norm=0.1, encoder_init_gain=1.0, l1_coefficient=5.0)
        self._fill(l1_coefficient=0.1)
        super().__post_init__()
        if self.l1_coefficient < 0:
            raise UserError(f"coder.l1_coefficient must not be negative, got {self.l1_coefficient}")
        if not 0 <= self.l1_warm_up <= 1:
            raise UserError(f"coder.l1_warm_up is a share of the run in [0, 1], got {self.l1_warm_up}")
        if self.variant == "2023" and self.decoder_norm == "free":
            raise UserError('coder.variant="2023" needs decoder_norm="unit": with free norms the penalty means nothing')


@final
class Relu(SparseCoder):
    """See the module's docstring for the maths."""

    Config = ReluConfig
    sparsity = "l1_coefficient"
    splits_latents = True
    config: ReluConfig

    @torch.no_grad()
    def encode(self, x_BD: Float[Tensor, "B D"]) -> Codes:
        return self.active(x_BD, Above(0.0))

    def loss(self, x_BD: Float[Tensor, "B D_read"], y_BD: Float[Tensor, "B D_write"], moment: Moment) -> CoderStep:
        codes = self.active(x_BD, Above(0.0))
        y_hat_BD = self.reconstruct(codes, x_BD)
        size = codes.values
        if self.config.variant == "april_2024":
            size = size * latent_values(codes, self.decoder_norms())
        coefficient = self.config.l1_coefficient * warm_up(moment.progress, self.config.l1_warm_up)
        l1 = coefficient * self.peers.over_latents(size.sum()) / x_BD.shape[0]
        losses = {"mse": mean_squared_error(y_hat_BD, y_BD), "l1": l1}
        if self.config.ghost_grads:
            losses |= ghost_losses(self, x_BD, y_BD, y_hat_BD, moment)
        return CoderStep(losses, codes, y_hat_BD)
