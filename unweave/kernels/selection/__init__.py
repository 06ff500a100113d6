"""From a matrix of pre-activations to Codes: above a threshold, top k of the batch, top k of each row."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.types import Codes

SAMPLED = 65_536
"""Entries looked at to guess where the B*k-th largest value lies."""


def above_threshold(pre: Float[Tensor, "B L"], threshold: Float[Tensor, ""] | float) -> Codes:
    """Codes of the entries strictly above ``threshold``; a row never depends on another row."""
    return _codes_at((pre > threshold).flatten().nonzero().flatten(), pre)


def top_k_of_row(pre: Float[Tensor, "B L"], k: int) -> Codes:
    """Codes of the k largest positive entries of each row (TopK, Gao et al. 2024)."""
    latents = pre.topk(k, dim=1, sorted=False).indices.sort(dim=1).values
    flat = (latents + pre.shape[1] * torch.arange(pre.shape[0], device=pre.device)[:, None]).flatten()
    return _codes_at(flat[pre.flatten()[flat] > 0], pre)


def top_k_of_batch(pre: Float[Tensor, "B L"], k: int) -> Codes:
    """Codes of the B*k largest positive entries of the whole batch (BatchTopK, Bussmann et al. 2024).

    Exact, without sorting B*L values: a sample gives a bound that about twice as many entries exceed, and the top
    B*k of those few are the top B*k of all. If the guess was too high, all positive entries are candidates.
    """
    flat, wanted = pre.flatten(), pre.shape[0] * k
    candidates = (flat > _bound_for(flat, 2 * wanted)).nonzero().flatten()
    if candidates.shape[0] < wanted:
        candidates = (flat > 0).nonzero().flatten()
    if candidates.shape[0] > wanted:
        keep = torch.zeros(candidates.shape[0], dtype=torch.bool, device=flat.device)
        keep[flat[candidates].topk(wanted, sorted=False).indices] = True
        candidates = candidates[keep]
    return _codes_at(candidates, pre)


def _bound_for(flat: Tensor, wanted: int) -> float | Tensor:
    stride = max(1, flat.shape[0] // SAMPLED) | 1  # odd, so that it meets every column of a power of two of them
    sample = flat[::stride]
    rank = wanted * sample.shape[0] // flat.shape[0]
    if not 0 < rank < sample.shape[0]:
        return 0.0
    return sample.kthvalue(sample.shape[0] - rank).values.clamp(min=0.0)


def _codes_at(flat: Int[Tensor, " E"], pre: Float[Tensor, "B L"]) -> Codes:
    """Codes at ascending positions of the flattened matrix."""
    n_rows, n_latents = pre.shape
    row_ids = flat // n_latents
    offsets = torch.zeros(n_rows + 1, dtype=torch.int64, device=pre.device)
    offsets[1:] = torch.bincount(row_ids, minlength=n_rows).cumsum(0)
    codes = Codes(pre.flatten()[flat], flat - row_ids * n_latents, offsets, n_latents)
    codes.__dict__["row_ids"] = row_ids
    return codes
