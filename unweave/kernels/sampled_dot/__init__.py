"""Dot products at active entries only: the gradient of the latents."""

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.kernels.density import is_dense
from unweave.kernels.sampled_dot import reference
from unweave.types import Codes


def sampled_dot(codes: Codes, left: Float[Tensor, "B D"], right: Float[Tensor, "L D"]) -> Float[Tensor, " E"]:
    """``out[e] = left[row(e)] . right[latent(e)]`` for every active entry e."""
    if is_dense(codes):
        return reference.sampled_dot(codes, left, right)
    zeros = left.new_zeros(codes.latent_ids.shape[0])
    pattern = torch.sparse_csr_tensor(
        codes.row_offsets, codes.latent_ids, zeros, (codes.n_rows, codes.n_latents), check_invariants=False
    )
    return torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values()
