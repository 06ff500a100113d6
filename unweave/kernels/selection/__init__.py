"""Which entries of a pre-activation matrix are active: rules as data, and their application to a whole matrix."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from unweave.kernels.device import on_gpu
from unweave.kernels.selection import reference
from unweave.kernels.selection.rules import Above, GroupMax, Rule, TopKOfBatch, TopKOfRow
from unweave.types import Codes

__all__ = ["Above", "GroupMax", "Rule", "TopKOfBatch", "TopKOfRow", "largest", "narrow", "select"]


@torch.no_grad()
def select(pre: Float[Tensor, "B L"], rule: Rule) -> Codes:
    """Codes of the entries of a matrix that a rule keeps, without gradient. Ties go to the lower row, then latent.

    On a GPU, rules whose number of entries follows from shapes fill it up with explicit zeros.
    """
    if on_gpu(pre):
        from unweave.kernels.selection import gpu

        return gpu.select(pre, rule)
    if pre.device.type != "cpu" or pre.dtype not in (torch.float32, torch.float64):
        return _from_mask(pre, reference.mask(pre, rule))
    from unweave.kernels.selection.cpu import Matrix, keep

    return keep(Matrix(pre.contiguous()), pre.new_zeros(pre.shape[1]), rule)


def narrow(codes: Codes, rule: TopKOfRow) -> Codes:
    """Keep the k largest entries of each row of codes that hold more; differentiable in the values.

    On a GPU the others become explicit zeros, so that nothing waits for the number of those kept.
    """
    score = codes.values.abs() if rule.signed else codes.values
    by_size = score.argsort(descending=True, stable=True)
    order = by_size[codes.row_ids[by_size].argsort(stable=True)]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(order.shape[0], device=order.device) - codes.row_offsets[:-1][codes.row_ids[order]]
    if on_gpu(codes.values):
        return codes.with_values(torch.where(rank < rule.k, codes.values, 0.0))
    return codes.where(rank < rule.k)


def largest(values: Float[Tensor, " E"], count: int) -> Bool[Tensor, " E"]:
    """Marks the ``count`` largest of many values; ties go to the first."""
    if count >= values.shape[0]:
        return torch.ones_like(values, dtype=torch.bool)
    least = values.kthvalue(values.shape[0] - count + 1).values if count > 0 else values.new_tensor(torch.inf)
    keep = values > least
    ties = (values == least).nonzero().flatten()[: count - int(keep.sum())]
    keep[ties] = True
    return keep


def _from_mask(pre: Tensor, mask: Tensor) -> Codes:
    rows, latents = mask.nonzero(as_tuple=True)
    return Codes(pre[mask], latents, F.pad(mask.sum(1).cumsum(0), (1, 0)), pre.shape[1], {"row_ids": rows})
