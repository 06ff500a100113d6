"""Selections, defined: which entries of a pre-activation matrix are active, as a boolean matrix."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def mask(pre: Float[Tensor, "B L"], rule: Any) -> Bool[Tensor, "B L"]:
    """The entries that a rule keeps."""
    match type(rule).__name__:
        case "TopKOfRow":
            return top_k_of_row(pre, rule.k, signed=rule.signed)
        case "TopKOfBatch":
            return top_k_of_batch(pre, rule.k)
        case "Above":
            return above(pre, rule.threshold)
        case _:
            return group_max(pre, rule.n_groups)


def above(pre: Float[Tensor, "B L"], threshold: Tensor | float) -> Bool[Tensor, "B L"]:
    """Entries strictly above a threshold."""
    return pre > threshold


def top_k_of_batch(pre: Float[Tensor, "B L"], k: int | float) -> Bool[Tensor, "B L"]:
    """The int(B*k) largest positive entries of the whole batch (fewer where fewer are positive), by a full sort."""
    order = pre.flatten().argsort(descending=True, stable=True)[: int(pre.shape[0] * k)]
    kept = torch.zeros(pre.numel(), dtype=torch.bool, device=pre.device)
    kept[order] = True
    return kept.view_as(pre) & (pre > 0)


def top_k_of_row(pre: Float[Tensor, "B L"], k: int, *, signed: bool = False) -> Bool[Tensor, "B L"]:
    """The k largest positive entries of each row; ``signed``: the k largest magnitudes that are not 0."""
    score = pre.abs() if signed else pre
    order = score.argsort(dim=1, descending=True, stable=True)[:, :k]
    return torch.zeros_like(pre, dtype=torch.bool).scatter_(1, order, True) & (score > 0)


def group_max(pre: Float[Tensor, "B L"], n_groups: int) -> Bool[Tensor, "B L"]:
    """The first largest entry of each of ``n_groups`` equal runs of latents, where it is positive."""
    groups = pre.unflatten(1, (n_groups, -1))
    winners = torch.zeros_like(groups, dtype=torch.bool).scatter_(2, groups.argmax(2, keepdim=True), True)
    return winners.flatten(1) & (pre > 0)
