"""ProLU: a bias that gates a latent but does not shift its activation (Taggart 2024, Alignment Forum).

With m = (x - b_dec) W_enc^T, without bias, f = m where m > 0 and m + b_enc > 0, else 0; y_hat = f W_dec + b_dec. So an
active latent reports m itself, while under ReLU a negative bias that keeps noise out also shrinks what it reports. A
positive bias has no effect. L = |y - y_hat|^2 + l_coefficient * sum_i f_i^p with p = 1 (L1) or 1/2, the first summed
over D, both averaged over B. Decoder rows are kept at unit norm. The penalty rises linearly from 0 over the first
``l_warm_up`` of the run.

f has no useful gradient with respect to the bias, so one is made up; both act where the latent is active:

``relu``: df/dm = 1 and df/db = 1, as if f were relu(m + b).
``ste``: df/dm = 1 + m and df/db = m, from f = relu(m) * step(m + b) with the straight-through step'(z) = step(z).
"""

from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.coders.base import CoderConfig, CoderStep, Moment, SparseCoder, mean_squared_error, warm_up
from unweave.coders.wiring import Wiring
from unweave.errors import UserError
from unweave.kernels.latent_values import latent_values
from unweave.kernels.selection import Above
from unweave.types import Codes


@dataclass(frozen=True, kw_only=True)
class ProluConfig(CoderConfig):
    """Settings of a ProLU coder."""

    variant: Literal["relu", "ste"] = "relu"
    """Which made-up gradient the bias gets: relu or ste."""
    l_coefficient: float = 0.1
    """Weight of the sparsity penalty; higher means fewer active latents."""
    l_power: float = 1.0
    """Power of the activations in the penalty: 1 is L1, 0.5 its square-root form."""
    l_warm_up: float = 0.05
    """Share of the run over which the penalty rises from 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.l_coefficient < 0:
            raise UserError(f"coder.l_coefficient must not be negative, got {self.l_coefficient}")
        if not 0 < self.l_power <= 1:
            raise UserError(f"coder.l_power must be in (0, 1], got {self.l_power}")
        if not 0 <= self.l_warm_up <= 1:
            raise UserError(f"coder.l_warm_up is a share of the run in [0, 1], got {self.l_warm_up}")
        if self.decoder_norm == "free":
            raise UserError('prolu needs decoder_norm="unit": free norms escape its penalty')


@final
class Prolu(SparseCoder):
    """See the module's docstring for the maths."""

    Config = ProluConfig
    sparsity = "l_coefficient"
    config: ProluConfig

    def __init__(self, config: ProluConfig, wiring: Wiring) -> None:
        super().__init__(config, wiring)
        if self.config.input_scale == "whiten" and not self.config.centre:
            raise UserError(
                "prolu cannot whiten rows that b_dec does not centre: it has no bias to fold their mean into; "
                "choose another coder.input_scale"
            )

    @torch.no_grad()
    def encode(self, x_BD: Float[Tensor, "B D"]) -> Codes:
        return self._gated(x_BD)

    def loss(self, x_BD: Float[Tensor, "B D_read"], y_BD: Float[Tensor, "B D_write"], moment: Moment) -> CoderStep:
        gated = self._gated(x_BD)
        pseudo = _Prolu if self.config.variant == "ste" else _ProluAsRelu
        codes = gated.with_values(pseudo.apply(gated.values, latent_values(gated, self.b_enc)))
        y_hat_BD = self.reconstruct(codes, x_BD)
        coefficient = self.config.l_coefficient * warm_up(moment.progress, self.config.l_warm_up)
        penalty = coefficient * codes.values.pow(self.config.l_power).sum() / x_BD.shape[0]
        return CoderStep({"mse": mean_squared_error(y_hat_BD, y_BD), "lp": penalty}, codes, y_hat_BD)

    def _gated(self, x_BD: Float[Tensor, "B D"]) -> Codes:
        """The entries of m that pass both gates."""
        return self.active(x_BD, Above(torch.relu(-self.b_enc.detach())), torch.zeros_like(self.b_enc))


class _ProluAsRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, m: Tensor, bias: Tensor) -> Tensor:
        return m.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        return grads[0], grads[0]


class _Prolu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, m: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(m)
        return m.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (m,) = ctx.saved_tensors
        return grads[0] * (1.0 + m), grads[0] * m
