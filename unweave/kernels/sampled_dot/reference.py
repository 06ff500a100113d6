"""Sampled dot product, defined: ``out[e] = left[row(e)] . right[latent(e)]``."""

from jaxtyping import Float
from torch import Tensor

from unweave.types import Codes


def sampled_dot(codes: Codes, left: Float[Tensor, "B D"], right: Float[Tensor, "L D"]) -> Float[Tensor, " E"]:
    """The full product, of which only the active entries are kept."""
    return (left @ right.T)[codes.row_ids, codes.latent_ids]
