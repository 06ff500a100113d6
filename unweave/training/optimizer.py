"""Adam over a coder's parameters, with the global gradient norm clipped and decoder rows kept at their norm.

Kingma and Ba 2015. Decoder rows of unit norm have the part of their gradient along themselves removed before the step
and are divided by their norm after it (Bricken et al. 2023, Gao et al. 2024). Rows of norm at most one are divided by
their norm after the step where it is longer, and free rows are left alone. A step whose gradient is not finite changes
nothing.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.coders import SparseCoder
from unweave.kernels.adam_rows import adam_rows, radial_parts

_OF_THE_OUTPUT = ("b_dec", "W_skip")
"""Parameters whose rows belong to what is written, of which there may be as many as latents."""


@dataclass(frozen=True)
class _Moments:
    mean: Tensor
    square: Tensor


class CoderAdam:
    """The optimizer of one coder."""

    def __init__(self, coder: SparseCoder, betas: tuple[float, float], eps: float = 1e-8) -> None:
        self.coder = coder
        self.betas = betas
        self.eps = eps
        self.n_steps = 0
        self.moments = {name: _no_moments(p) for name, p in coder.named_parameters()}

    @torch.no_grad()
    def step(self, lr: float, clip: float) -> Float[Tensor, ""]:
        """One step from the gradients that the parameters hold, which are then dropped; returns their norm.

        ``clip``: the largest norm of the gradient that is used as it is, longer ones are scaled to it; 0: any.
        """
        gradients = {name: p.grad for name, p in self.coder.named_parameters() if p.grad is not None}
        along: Tensor | None = None
        squares = []
        for name, gradient in gradients.items():
            if name == "W_dec" and self.coder.config.decoder_norm == "unit":
                row_squares, along = radial_parts(gradient, self.coder.W_dec)
                squares.append(row_squares.sum())
            else:
                squares.append(torch.linalg.vector_norm(gradient, dtype=_wide(gradient)).square())
        norm = torch.stack(squares).sum().sqrt()
        shorter = clip / norm.clamp(min=clip) if clip > 0 else torch.ones_like(norm)
        scale = torch.where(norm.isfinite(), shorter, torch.nan)
        self.n_steps += 1
        for name, gradient in gradients.items():
            is_decoder = name == "W_dec"
            self._update(name, gradient, scale, along if is_decoder else None, lr, is_decoder)
        self.coder.zero_grad()
        return norm

    def _update(
        self, name: str, gradient: Tensor, scale: Tensor, along: Tensor | None, lr: float, is_decoder: bool
    ) -> None:
        moments = self.moments[name]
        changed = (self.coder.get_parameter(name).data, moments.mean, moments.square)
        width = gradient.shape[-1] if gradient.ndim else 1
        weights, mean, square = (tensor.view(-1, width) for tensor in changed)  # a copy would swallow the step
        adam_rows(
            weights,
            gradient.reshape(-1, width),
            mean,
            square,
            scale,
            along,
            lr=lr,
            betas=self.betas,
            eps=self.eps,
            step=self.n_steps,
            norm=self.coder.config.decoder_norm if is_decoder else "free",
        )

    @torch.no_grad()
    def forget_rows(self, latents: Int[Tensor, " n"]) -> None:
        """Reset the moments of some latents, of every parameter that has a row or a number for each latent."""
        for name, moments in self.moments.items():
            is_of_latents = moments.mean.ndim > 0 and moments.mean.shape[0] == self.coder.n_latents
            if is_of_latents and name not in _OF_THE_OUTPUT:
                moments.mean[latents] = 0.0
                moments.square[latents] = 0.0


def _no_moments(parameter: Tensor) -> _Moments:
    # in bfloat16 a step of 1 - beta2 = 0.001 would be lost to rounding
    zeros = torch.zeros_like(parameter, dtype=_wide(parameter))
    return _Moments(zeros, zeros.clone())


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
