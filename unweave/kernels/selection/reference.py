"""Selections, defined: which entries of a pre-activation matrix are active, as a boolean matrix."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def above_threshold(pre: Float[Tensor, "B L"], threshold: Float[Tensor, ""] | float) -> Bool[Tensor, "B L"]:
    """Entries strictly above a threshold."""
    return pre > threshold


def top_k_of_batch(pre: Float[Tensor, "B L"], k: int) -> Bool[Tensor, "B L"]:
    """The B*k largest positive entries of the whole batch (fewer where fewer are positive), by a full sort."""
    order = pre.flatten().argsort(descending=True)[: pre.shape[0] * k]
    mask = torch.zeros(pre.numel(), dtype=torch.bool, device=pre.device)
    mask[order] = True
    return mask.view_as(pre) & (pre > 0)


def top_k_of_row(pre: Float[Tensor, "B L"], k: int) -> Bool[Tensor, "B L"]:
    """The k largest positive entries of each row."""
    order = pre.argsort(dim=1, descending=True)[:, :k]
    return torch.zeros_like(pre, dtype=torch.bool).scatter_(1, order, True) & (pre > 0)
