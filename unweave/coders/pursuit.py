"""Codes by search instead of an encoder: gradient pursuit with any decoder (Blumensath and Davies 2008).

As used for sparse autoencoders by Nanda et al. (2024, "Progress Update 1 from the GDM Mech Interp Team"). Decoder rows
are taken as directions a_i of norm 1. Each row starts with no latent and the residual r = x. Repeat k times: add to its
latents S the one with the largest r . a_i, if that is positive; with g_i = r . a_i over S and c = sum g_i a_i, go along
g as far as is best, f <- relu(f + (c . r) / (c . c) * g); a latent that comes to 0 leaves S; r <- x - sum f_i a_i.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from unweave.errors import UserError
from unweave.types import Codes

_PRODUCTS_AT_ONCE = 2**24


@torch.no_grad()
def pursue(W_dec: Float[Tensor, "L D"], x_BD: Float[Tensor, "B D"], k: int) -> Codes:
    """Non-negative codes of at most k latents per row that write ``x``, each row by itself.

    ``x`` is what latents are to write: subtract the decoder's bias and a skip path first.
    """
    n_latents = W_dec.shape[0]
    if not 0 < k <= n_latents:
        raise UserError(f"pursuit needs 0 < k <= n_latents, got k={k} with n_latents={n_latents}")
    norms = W_dec.norm(dim=1).clamp(min=1e-12)
    atoms = W_dec / norms[:, None]
    found = [_pursue(atoms, part, k) for part in x_BD.split(rows_at_once(n_latents))]
    ids_BK, values_BK = (torch.cat(parts) for parts in zip(*found, strict=True))
    return codes_of(ids_BK, values_BK / norms[ids_BK], n_latents)


def best_atoms(atoms: Float[Tensor, "L D"], x_BD: Float[Tensor, "B D"]) -> tuple[Tensor, Int[Tensor, " B"]]:
    """The largest product of each row with an atom, and its atom; dense, but a block of rows at a time."""
    found = [torch.max(part @ atoms.T, dim=1) for part in x_BD.split(rows_at_once(atoms.shape[0]))]
    values, ids = zip(*found, strict=True)
    return torch.cat(values), torch.cat(ids)


def rows_at_once(n_latents: int) -> int:
    """Rows whose products with all latents are held at once."""
    return max(1, _PRODUCTS_AT_ONCE // n_latents)


def codes_of(ids_BK: Int[Tensor, "B K"], values_BK: Float[Tensor, "B K"], n_latents: int) -> Codes:
    """Codes of the positive values of each row, those of one latent summed; differentiable in the values."""
    active_BK = values_BK > 0
    rows_BK = torch.arange(ids_BK.shape[0], device=ids_BK.device)[:, None]
    keys, entries = torch.unique((rows_BK * n_latents + ids_BK)[active_BK], return_inverse=True)
    values = values_BK.new_zeros(keys.shape[0]).index_add(0, entries, values_BK[active_BK])
    row_ids = keys // n_latents
    offsets = F.pad(torch.bincount(row_ids, minlength=ids_BK.shape[0]).cumsum(0), (1, 0))
    return Codes(values, keys % n_latents, offsets, n_latents, {"row_ids": row_ids})


def _pursue(atoms: Tensor, x_BD: Tensor, k: int) -> tuple[Int[Tensor, "B K"], Float[Tensor, "B K"]]:
    """Latents and values of each row, in the order in which they were found; a latent that was never used has 0."""
    ids_BK = torch.zeros(x_BD.shape[0], k, dtype=torch.int64, device=x_BD.device)
    values_BK = x_BD.new_zeros(x_BD.shape[0], k)
    is_taken_BK = torch.zeros_like(ids_BK, dtype=torch.bool)
    residual_BD = x_BD
    for step in range(k):
        products_BL = residual_BD @ atoms.T
        largest_B, new_B = products_BL.max(dim=1)
        is_new_BK = is_taken_BK & (ids_BK == new_B[:, None])
        adds_B = (largest_B > 0) & ~is_new_BK.any(dim=1)
        ids_BK[:, step] = new_B
        is_taken_BK[:, step] = is_new_BK[:, step] = adds_B
        support_BK = is_new_BK | (values_BK > 0)
        g_BK = products_BL.gather(1, ids_BK) * support_BK
        c_BD = F.embedding_bag(ids_BK, atoms, per_sample_weights=g_BK, mode="sum")
        length_B = (c_BD * residual_BD).sum(1) / c_BD.square().sum(1)
        values_BK = torch.relu(values_BK + torch.where(g_BK != 0, length_B[:, None] * g_BK, 0.0))
        residual_BD = x_BD - F.embedding_bag(ids_BK, atoms, per_sample_weights=values_BK, mode="sum")
    return ids_BK, values_BK
