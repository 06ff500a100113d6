"""Sampled dot product for CPUs, compiled: one vectorised product of two rows per active entry."""

import numba
from torch import Tensor

from unweave.kernels.compiled import array, dot, parallel
from unweave.types import Codes


def sampled_dot(codes: Codes, left: Tensor, right: Tensor) -> Tensor:
    """See the reference."""
    out = left.new_empty(codes.latent_ids.shape[0])
    _sampled_dot(*map(array, (codes.row_offsets, codes.latent_ids, left, right, out)))
    return out


@parallel
def _sampled_dot(offsets, latents, left, right, out):  # type: ignore[no-untyped-def]
    for b in numba.prange(left.shape[0]):
        for e in range(offsets[b], offsets[b + 1]):
            out[e] = dot(left[b], right[latents[e]])
