"""Gated: one path decides which latents are active, another how strongly (Rajamanoharan et al. 2024, arXiv 2404.16014).

With u = (x - b_dec) W_enc^T, shared by both paths: the gate is pi = u + b_enc, the magnitude exp(r_mag) * u + b_mag,
and f = relu(magnitude) where pi > 0, else 0; y_hat = f W_dec + b_dec. Only the gate is penalised, so magnitudes do not
shrink. The step from gate to activity has no gradient; the gate learns from two further losses:

``paper``: L = |y - y_hat|^2 + l1_coefficient * sum_i relu(pi_i) + |y - y_gate|^2 with y_gate = relu(pi) W_dec + b_dec
and the decoder held fixed in y_gate. Decoder rows are kept at unit norm.

``norm_weighted`` (the authors' comment on the paper's Alignment Forum post, 2024): the penalty is sum_i relu(pi_i)
|w_i|, decoder rows are free, and the decoder learns from y_gate too, since it must be fixed in both or in neither.

Squared errors are summed over D, all terms averaged over B. The penalty rises linearly from 0 over the first
``l1_warm_up`` of the run. W_enc and b_enc are the paper's W_gate and b_gate.
"""

from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unweave.coders.base import CoderConfig, CoderStep, Moment, SparseCoder, mean_squared_error, warm_up
from unweave.coders.wiring import Wiring
from unweave.errors import UserError
from unweave.kernels.latent_values import latent_values
from unweave.kernels.selection import Above
from unweave.kernels.sparse_decode import sparse_decode
from unweave.types import Codes


@dataclass(frozen=True, kw_only=True)
class GatedConfig(CoderConfig):
    """Settings of a gated coder."""

    variant: Literal["paper", "norm_weighted"] = "paper"
    """Which published form: paper (unit decoder rows) or norm_weighted (penalty counts the norm of decoder rows)."""
    l1_coefficient: float = 0.2
    """Weight of the sparsity penalty on the gate; higher means fewer active latents."""
    l1_warm_up: float = 0.05
    """Share of the run over which the penalty rises from 0."""

    def __post_init__(self) -> None:
        if self.variant == "norm_weighted":
            self._fill(decoder_norm="free", decoder_init_norm=0.1, encoder_init_gain=1.0)
        super().__post_init__()
        if self.l1_coefficient < 0:
            raise UserError(f"coder.l1_coefficient must not be negative, got {self.l1_coefficient}")
        if not 0 <= self.l1_warm_up <= 1:
            raise UserError(f"coder.l1_warm_up is a share of the run in [0, 1], got {self.l1_warm_up}")
        if self.variant == "paper" and self.decoder_norm == "free":
            raise UserError('coder.variant="paper" needs decoder_norm="unit": free norms escape the penalty')


@final
class Gated(SparseCoder):
    """See the module's docstring for the maths."""

    Config = GatedConfig
    sparsity = "l1_coefficient"
    reconstruction_losses = ("mse", "gate_mse")
    splits_latents = True
    config: GatedConfig
    in_activation_units = ("b_enc", "b_mag")
    per_latent = ("W_enc", "b_enc", "b_mag")

    def __init__(self, config: GatedConfig, wiring: Wiring) -> None:
        super().__init__(config, wiring)
        self.r_mag = nn.Parameter(torch.zeros(config.n_latents))
        self.b_mag = nn.Parameter(torch.zeros(config.n_latents))

    @torch.no_grad()
    def encode(self, x_BD: Float[Tensor, "B D"]) -> Codes:
        codes = self._open_gates(x_BD)[1]
        return codes.where(codes.values > 0)

    def loss(self, x_BD: Float[Tensor, "B D_read"], y_BD: Float[Tensor, "B D_write"], moment: Moment) -> CoderStep:
        gates, codes = self._open_gates(x_BD)
        y_hat_BD = self.reconstruct(codes, x_BD)
        if self.config.variant == "paper":
            y_gate_BD = self._frozen_reconstruction(gates, x_BD)
            size = gates.values
        else:
            y_gate_BD = self.reconstruct(gates, x_BD)
            size = gates.values * latent_values(gates, self.decoder_norms())
        coefficient = self.config.l1_coefficient * warm_up(moment.progress, self.config.l1_warm_up)
        losses = {
            "mse": mean_squared_error(y_hat_BD, y_BD),
            "gate_mse": mean_squared_error(y_gate_BD, y_BD),
            "l1": coefficient * self.peers.over_latents(size.sum()) / x_BD.shape[0],
        }
        return CoderStep(losses, codes, y_hat_BD)

    @torch.no_grad()
    def shift_input(self, offset_D: Float[Tensor, " D_read"]) -> None:
        super().shift_input(offset_D)
        self.b_mag.sub_(self.r_mag.exp() * (self.W_enc @ offset_D))

    def _open_gates(self, x_BD: Float[Tensor, "B D"]) -> tuple[Codes, Codes]:
        """The positive gates, and at the same entries the activations, some of which may be 0."""
        gates = self.active(x_BD, Above(0.0))
        u = gates.values - latent_values(gates, self.b_enc)
        magnitudes = latent_values(gates, self.r_mag.exp()) * u + latent_values(gates, self.b_mag)
        return gates, gates.with_values(torch.relu(magnitudes))

    def _frozen_reconstruction(self, gates: Codes, x_BD: Float[Tensor, "B D_read"]) -> Float[Tensor, "B D_write"]:
        """What the gates would write as activations, with a decoder that does not learn from it."""
        written = self.peers.over_latents(sparse_decode(gates, self.W_dec.detach())) + self.b_dec.detach()
        return written if self.W_skip is None else written + x_BD @ self.W_skip.detach().T
