"""Pre-activations of active latents as a differentiable function of the encoder, at the cost of the active entries."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.kernels.segment_sum import segment_sum
from unweave.types import Codes


def active_preactivations(
    codes: Codes, x: Float[Tensor, "B D"], W_enc: Float[Tensor, "L D"], b_enc: Float[Tensor, " L"]
) -> Float[Tensor, " E"]:
    """The entries that the dense product already gave, ``codes.values``, now with gradients for W_enc and b_enc.

    ``codes.values`` must hold ``(x @ W_enc.T + b_enc)`` at the active entries; nothing is multiplied again. There is no
    gradient for ``x``: a coder is trained on rows that do not depend on it.
    """
    return _ActivePreactivations.apply(W_enc, b_enc, x, codes)


class _ActivePreactivations(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, W_enc: Tensor, b_enc: Tensor, x: Tensor, codes: Codes) -> Tensor:
        ctx.codes = codes
        ctx.save_for_backward(x)
        return codes.values.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (grad,) = grads
        (x,) = ctx.saved_tensors
        codes: Codes = ctx.codes
        grad_bias = grad.new_zeros(codes.n_latents).index_add_(0, codes.latent_ids, grad)
        return segment_sum(codes, grad, x), grad_bias, None, None
