"""From rows to Codes: the encoder product, the selection of active entries, and their gradient at the cost of those."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.kernels.device import on_gpu
from unweave.kernels.latent_values import latent_sum
from unweave.kernels.segment_sum import segment_sum
from unweave.kernels.selection import Above, Rule, select
from unweave.kernels.sparse_decode import sparse_decode
from unweave.types import Codes


def encode(
    x: Float[Tensor, "B D"],
    W_enc: Float[Tensor, "L D"],
    b_enc: Float[Tensor, " L"],
    rule: Rule,
    *,
    centre: Float[Tensor, " D"] | None = None,
    choose: Callable[[Codes], Codes] | None = None,
) -> Codes:
    """Codes of ``pre = (x - centre) @ W_enc.T + b_enc`` at the entries that the rule keeps.

    ``choose`` may leave out some of them before anything is differentiated.

    ``codes.values`` are differentiable in ``x``, ``W_enc``, ``b_enc`` and ``centre``; each gradient costs the active
    entries only. Which entries are kept has no gradient.
    """
    with torch.no_grad():
        centred = x if centre is None else x - centre
        codes = _find(centred, W_enc, b_enc, rule)
        if choose is not None:
            codes = choose(codes)
    has_fillers = on_gpu(x) and not isinstance(rule, Above)
    values = _ActivePreactivations.apply(codes.values, x, W_enc, b_enc, centre, centred, codes, has_fillers)
    return codes.with_values(values)


class _ActivePreactivations(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        x: Tensor,
        W_enc: Tensor,
        b_enc: Tensor,
        centre: Tensor | None,
        centred: Tensor,
        codes: Codes,
        has_fillers: bool,
    ) -> Tensor:
        ctx.codes, ctx.has_fillers = codes, has_fillers
        ctx.save_for_backward(centred, W_enc)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        centred, W_enc = ctx.saved_tensors
        codes: Codes = ctx.codes
        _, needs_x, needs_weights, needs_bias, needs_centre, *_ = ctx.needs_input_grad
        if ctx.has_fillers:  # an explicit 0 stands for no entry, whatever was there
            grad = torch.where(codes.values != 0, grad, 0.0)
        grad_x = sparse_decode(codes.with_values(grad), W_enc) if needs_x else None
        grad_weights = segment_sum(codes, grad, centred) if needs_weights else None
        grad_bias = latent_sum(codes, grad) if needs_bias or needs_centre else None
        # summed over rows before the product with W_enc: 2LD operations instead of 2BLD (Gao et al. 2024)
        grad_centre = -(grad_bias @ W_enc) if grad_bias is not None and needs_centre else None
        return None, grad_x, grad_weights, grad_bias if needs_bias else None, grad_centre, None, None, None


def _find(x: Tensor, W_enc: Tensor, b_enc: Tensor, rule: Rule) -> Codes:
    if W_enc.shape[0] == 0:
        nothing = x.new_zeros(x.shape[0] + 1, dtype=torch.int64)
        return Codes(x.new_zeros(0), nothing[:0], nothing, 0)
    if on_gpu(x) or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return select(torch.addmm(b_enc, x, W_enc.T), rule)
    from unweave.kernels.encode import cpu  # compiled on first use

    return cpu.encode(x, W_enc, b_enc, rule)
