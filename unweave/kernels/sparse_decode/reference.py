"""Sparse decode, defined: ``out[b] = sum of value(e) * W_dec[latent(e)] over the entries e of row b``."""

from jaxtyping import Float
from torch import Tensor

from unweave.types import Codes


def sparse_decode(codes: Codes, W_dec: Float[Tensor, "L D"]) -> Float[Tensor, "B D"]:
    """The dense product; autograd gives its gradients."""
    return codes.dense() @ W_dec
