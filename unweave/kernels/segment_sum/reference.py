"""Segment sum, defined: ``out[i] = sum of weights[e] * source[row(e)] over the entries e of latent i``."""

from jaxtyping import Float
from torch import Tensor

from unweave.types import Codes


def segment_sum(codes: Codes, weights: Float[Tensor, " E"], source: Float[Tensor, "B D"]) -> Float[Tensor, "L D"]:
    """The dense product that a weight gradient is: ``codes.with_values(weights).dense().T @ source``."""
    return codes.with_values(weights).dense().T @ source
