"""Sparse decode for GPUs: a weighted sum of decoder rows over the run of entries that each row owns.

A row's run is walked by one program, however long: it is k entries in TopK, and where BatchTopK gives a hard row a
thousand, these are 63 steps of 16.
"""

from jaxtyping import Float
from torch import Tensor

from unweave.kernels.run_sum import run_sum
from unweave.types import Codes


def sparse_decode(codes: Codes, values: Float[Tensor, " E"], W_dec: Float[Tensor, "L D"]) -> Float[Tensor, "B D"]:
    """See the reference, for the entries of ``codes`` with other values."""
    return run_sum(codes.row_offsets[:-1], codes.latent_ids, values, W_dec)
