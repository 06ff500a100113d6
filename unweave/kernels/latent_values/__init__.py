"""A number of each latent at every active entry of it, differentiable: thresholds, gains, decoder norms."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.kernels.device import on_gpu
from unweave.types import Codes


def latent_values(codes: Codes, per_latent: Float[Tensor, " L"]) -> Float[Tensor, " E"]:
    """``out[e] = per_latent[latent(e)]``; the gradient is the sum over each latent's entries, in their order."""
    return _LatentValues.apply(per_latent, codes)


def latent_sum(codes: Codes, values: Float[Tensor, " E"]) -> Float[Tensor, " L"]:
    """Sum of the values at each latent's entries, in their order; no gradient."""
    if on_gpu(values):
        from unweave.kernels.latent_values import gpu

        return gpu.latent_sum(codes, values)
    return values.new_zeros(codes.n_latents).index_add_(0, codes.latent_ids, values)


def row_sum(codes: Codes, values: Float[Tensor, " E"]) -> Float[Tensor, " B"]:
    """Sum of the values at each row's entries; differentiable."""
    return _RowSum.apply(values, codes)


class _LatentValues(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, per_latent: Tensor, codes: Codes) -> Tensor:
        ctx.codes = codes
        return per_latent[codes.latent_ids]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return latent_sum(ctx.codes, grads[0]), None


class _RowSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, codes: Codes) -> Tensor:
        ctx.codes = codes
        if on_gpu(values):
            from unweave.kernels.latent_values import gpu

            return gpu.row_sum(codes, values)
        return values.new_zeros(codes.n_rows).index_add(0, codes.row_ids, values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0][ctx.codes.row_ids], None
