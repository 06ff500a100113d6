"""Segment sum for GPUs: a weighted sum of rows over the run of entries of each latent."""

from jaxtyping import Float
from torch import Tensor

from unweave.kernels.run_sum import run_sum
from unweave.types import Codes


def segment_sum(codes: Codes, weights: Float[Tensor, " E"], source: Float[Tensor, "B D"]) -> Float[Tensor, "L D"]:
    """See the reference."""
    entries, rows, offsets = codes.by_latent
    return run_sum(offsets, rows, weights[entries], source, runs=codes.latent_ids[entries])
