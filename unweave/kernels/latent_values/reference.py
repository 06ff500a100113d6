"""Latent values, defined: plain indexing, whose gradient autograd gives."""

from jaxtyping import Float
from torch import Tensor

from unweave.types import Codes


def latent_values(codes: Codes, per_latent: Float[Tensor, " L"]) -> Float[Tensor, " E"]:
    """``out[e] = per_latent[latent(e)]``."""
    return per_latent[codes.latent_ids]
