"""Dot products at active entries only: the gradient of the latents."""

import warnings
from functools import cache

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
    _spend_beta_notice()
    zeros = left.new_zeros(codes.latent_ids.shape[0])
    pattern = torch.sparse_csr_tensor(
        codes.row_offsets, codes.latent_ids, zeros, (codes.n_rows, codes.n_latents), check_invariants=False
    )
    return torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values()


@cache
def _spend_beta_notice() -> None:
    """Torch warns once per process that compressed sparse rows are in beta; let that once be here, unheard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor(torch.tensor([0, 0]), torch.tensor([], dtype=torch.int64), torch.tensor([]), (1, 1))
