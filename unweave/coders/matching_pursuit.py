"""Matching pursuit: latents are found one after another in what the earlier ones leave (Costa et al. 2025, 2506.03093).

The decoder's rows w_i, kept at unit norm, are also the encoder. A row starts with r = x - b_dec and takes k steps: i =
argmax r . w_i, v = r . w_i, f_i += v, r <- r - v w_i. It stops early when no r . w_i is positive, after a step that
leaves |r| less than ``residual_threshold``, and with ``stop_on_duplicate_support`` after a step that found a latent
again. So latents may be correlated, such as a concept and its kinds: one that was explained is no longer there to be
read. y_hat = f W_dec + b_dec = y - r. Loss: |y - y_hat|^2 summed over D and averaged over B. The gradient passes
through every v and every r; the choice of latents has none.

SAELens takes up to D steps by default, stops a row whose latent was found before, and does not keep decoder rows at
unit norm in training; overcomplete takes k steps and may subtract a latent. A step costs a product of all rows with all
latents, so training and use cost k times as much as with an encoder. It needs one site that is both read and written.
"""

from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.coders.base import CoderConfig, CoderStep, Moment, SparseCoder, mean_squared_error
from unweave.coders.pursuit import best_atoms, codes_of
from unweave.coders.wiring import Wiring
from unweave.errors import UserError
from unweave.kernels.segment_sum import segment_sum
from unweave.types import Codes


@dataclass(frozen=True, kw_only=True)
class MatchingPursuitConfig(CoderConfig):
    """Settings of a matching pursuit coder."""

    k: int = 32
    """Steps per row, the most latents that it has."""
    residual_threshold: float = 0.0
    """A row stops once a step leaves less than this norm of it, in units of the scaled rows; 0: it goes on."""
    stop_on_duplicate_support: bool = False
    """Whether a row stops once a step finds a latent that it already has, as in SAELens."""

    def __post_init__(self) -> None:
        self._fill(encoder_init_gain=1.0)
        super().__post_init__()
        if not 0 < self.k <= self.n_latents:
            raise UserError(f"coder.k needs 0 < k <= n_latents, got k={self.k} with n_latents={self.n_latents}")
        if self.residual_threshold < 0:
            raise UserError(f"coder.residual_threshold must not be negative, got {self.residual_threshold}")
        if self.decoder_norm != "unit" or self.decoder_init_norm != 1.0:
            got = f"decoder_norm={self.decoder_norm!r}, decoder_init_norm={self.decoder_init_norm}"
            raise UserError(f'matching_pursuit needs coder.decoder_norm="unit" and decoder_init_norm=1, got {got}')
        if self.encoder_init_gain != 1.0:
            raise UserError("coder.encoder_init_gain has no effect: the decoder is the encoder; leave it out")
        if not self.centre:
            raise UserError("coder.centre=false has no meaning: what is pursued is x - b_dec; leave it out")
        if self.input_scale == "whiten":
            raise UserError('coder.input_scale="whiten" cannot be undone where the decoder is the encoder; use another')


@final
class MatchingPursuit(SparseCoder):
    """See the module's docstring for the maths."""

    Config = MatchingPursuitConfig
    config: MatchingPursuitConfig
    readers = ()
    in_activation_units = ("residual_threshold",)
    per_latent = ()  # rows have unit norm
    residual_threshold: Tensor

    def __init__(self, config: MatchingPursuitConfig, wiring: Wiring) -> None:
        if wiring.kind != "sae":
            raise UserError(f"matching_pursuit needs one site that it reads and writes, got a {wiring.kind}; use topk")
        super().__init__(config, wiring)
        self.register_buffer("residual_threshold", torch.tensor(config.residual_threshold))

    def new_encoder(self, W_dec: Float[Tensor, "L D_write"]) -> None:
        """The decoder is the encoder."""

    @torch.no_grad()
    def encode(self, x_BD: Float[Tensor, "B D"]) -> Codes:
        return self._pursue(x_BD)

    def loss(self, x_BD: Float[Tensor, "B D_read"], y_BD: Float[Tensor, "B D_write"], moment: Moment) -> CoderStep:
        codes = self._pursue(x_BD)
        y_hat_BD = self.reconstruct(codes, x_BD)
        return CoderStep({"mse": mean_squared_error(y_hat_BD, y_BD)}, codes, y_hat_BD)

    def _pursue(self, x_BD: Float[Tensor, "B D"]) -> Codes:
        self.check_rows(x_BD)
        x_BD = self.wiring.normalised(x_BD) - self.b_dec
        ids_BK, values_BK, residual_BD = self._steps(x_BD.detach())
        values_BK = _Steps.apply(x_BD, self.W_dec, ids_BK, values_BK, residual_BD)
        return codes_of(ids_BK, values_BK, self.n_latents)

    @torch.no_grad()
    def _steps(self, residual_BD: Tensor) -> tuple[Int[Tensor, "B K"], Float[Tensor, "B K"], Float[Tensor, "B D"]]:
        """The latent of each step and its value, 0 where a row has stopped, and what is left in the end."""
        may_stop_early = self.config.stop_on_duplicate_support or self.config.residual_threshold > 0
        goes_on_B = torch.ones_like(residual_BD[:, 0], dtype=torch.bool)
        ids_KB = torch.zeros(self.config.k, len(residual_BD), dtype=torch.int64, device=residual_BD.device)
        values_KB = residual_BD.new_zeros(ids_KB.shape)
        for step in range(self.config.k):
            best_B, ids_B = best_atoms(self.W_dec, residual_BD)
            goes_on_B = goes_on_B & (best_B > 0)
            ids_KB[step], values_KB[step] = ids_B, torch.where(goes_on_B, best_B, 0.0)
            residual_BD = residual_BD - values_KB[step, :, None] * self.W_dec[ids_B]
            if self.config.stop_on_duplicate_support:
                goes_on_B = goes_on_B & ~((ids_KB[:step] == ids_B) & (values_KB[:step] > 0)).any(dim=0)
            goes_on_B = goes_on_B & (residual_BD.norm(dim=1) >= self.residual_threshold)
            if may_stop_early and not goes_on_B.any():
                break
        return ids_KB.T, values_KB.T, residual_BD


class _Steps(torch.autograd.Function):
    """The values of all steps, given with what is left; walks back from there, so that no step's residual is kept."""

    @staticmethod
    def forward(
        ctx: Any, x_BD: Tensor, W_dec: Tensor, ids_BK: Tensor, values_BK: Tensor, residual_BD: Tensor
    ) -> Tensor:
        ctx.save_for_backward(W_dec, ids_BK, values_BK, residual_BD)
        return values_BK.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        W_dec, ids_BK, values_BK, residual_BD = ctx.saved_tensors
        grad_residual_BD, grad_W_dec = torch.zeros_like(residual_BD), torch.zeros_like(W_dec)
        one_each = torch.arange(len(ids_BK) + 1, device=ids_BK.device)
        for step in range(ids_BK.shape[1] - 1, -1, -1):
            w_BD, v_B = W_dec[ids_BK[:, step]], values_BK[:, step, None]
            # v = r.w and r' = r - v w, from the gradients of v and of r'
            grad_v_B = grads[0][:, step, None] - (grad_residual_BD * w_BD).sum(1, keepdim=True)
            grad_v_B = torch.where(v_B > 0, grad_v_B, 0.0)
            residual_BD = residual_BD + v_B * w_BD
            grad_w_BD = grad_v_B * residual_BD - v_B * grad_residual_BD
            chosen = Codes(torch.ones_like(v_B[:, 0]), ids_BK[:, step], one_each, W_dec.shape[0])
            grad_W_dec += segment_sum(chosen, chosen.values, grad_w_BD)
            grad_residual_BD = grad_residual_BD + grad_v_B * w_BD
        return grad_residual_BD, grad_W_dec, None, None, None
