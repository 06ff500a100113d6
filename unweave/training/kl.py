"""KL divergence between next-token distributions, at the memory of one text's log-probabilities.

With p = softmax(clean) and q = softmax(spliced), KL(p || q) = sum_v p_v (log p_v - log q_v), and its gradient by the
spliced logits is q - p. It is found along with the value, text by text.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def kl_divergence(
    clean_NTV: Float[Tensor, "N T V"], spliced_NTV: Float[Tensor, "N T V"], is_content_NT: Bool[Tensor, "N T"]
) -> Float[Tensor, ""]:
    """Mean of KL(clean || spliced) over content tokens, in nats; differentiable in the spliced logits alone.

    Computed in float32, or in float64 where the logits are.
    """
    return _KL.apply(spliced_NTV, clean_NTV, is_content_NT)


class _KL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, spliced_NTV: Tensor, clean_NTV: Tensor, is_content_NT: Tensor) -> Tensor:
        wide = torch.promote_types(spliced_NTV.dtype, torch.float32)
        gradient_NTV = torch.zeros_like(spliced_NTV) if ctx.needs_input_grad[0] else None
        total = spliced_NTV.new_zeros((), dtype=wide)
        n_tokens = int(is_content_NT.sum())
        for i, is_content_T in enumerate(is_content_NT):
            places = is_content_T.nonzero().flatten().to(spliced_NTV.device)
            log_p = clean_NTV[i, places].to(wide).log_softmax(-1)
            log_q = spliced_NTV[i, places].to(wide).log_softmax(-1)
            p = log_p.exp()
            total += (p * (log_p - log_q)).sum() / n_tokens
            if gradient_NTV is not None:
                gradient_NTV[i, places] = (log_q.exp_().sub_(p) / n_tokens).to(gradient_NTV.dtype)
        ctx.save_for_backward(gradient_NTV)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (gradient_NTV,) = ctx.saved_tensors
        return gradient_NTV * grads[0].to(gradient_NTV.dtype), None, None
