"""From codes to rows, touching only the decoder rows of active latents, forwards and backwards."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unweave.kernels.density import is_dense
from unweave.kernels.device import on_gpu
from unweave.kernels.sampled_dot import sampled_dot
from unweave.kernels.segment_sum import segment_sum
from unweave.kernels.sparse_decode import reference
from unweave.types import Codes


def sparse_decode(codes: Codes, W_dec: Float[Tensor, "L D"]) -> Float[Tensor, "B D"]:
    """``out[b] = sum of value(e) * W_dec[latent(e)] over the entries e of row b``; differentiable in both."""
    if is_dense(codes):
        return reference.sparse_decode(codes, W_dec)
    return _SparseDecode.apply(codes.values, W_dec, codes)


class _SparseDecode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, W_dec: Tensor, codes: Codes) -> Tensor:
        ctx.codes = codes
        ctx.save_for_backward(values, W_dec)
        if on_gpu(W_dec):
            from unweave.kernels.sparse_decode import gpu

            return gpu.sparse_decode(codes, values, W_dec)
        return F.embedding_bag(codes.latent_ids, W_dec, codes.row_offsets[:-1], per_sample_weights=values, mode="sum")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (grad_BD,) = grads
        values, W_dec = ctx.saved_tensors
        needs_values, needs_weights, _ = ctx.needs_input_grad
        grad_values = sampled_dot(ctx.codes, grad_BD, W_dec) if needs_values else None
        grad_weights = segment_sum(ctx.codes, values, grad_BD) if needs_weights else None
        return grad_values, grad_weights, None
