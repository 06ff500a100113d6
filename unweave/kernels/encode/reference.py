"""Encoding, defined: the full product, a mask of active entries, and autograd for all gradients."""

from jaxtyping import Bool, Float
from torch import Tensor


def preactivations(
    x: Float[Tensor, "B D"],
    W_enc: Float[Tensor, "L D"],
    b_enc: Float[Tensor, " L"],
    centre: Float[Tensor, " D"] | None = None,
) -> Float[Tensor, "B L"]:
    """``(x - centre) @ W_enc.T + b_enc``."""
    return (x if centre is None else x - centre) @ W_enc.T + b_enc


def active_values(pre: Float[Tensor, "B L"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, " E"]:
    """The entries of the mask in the order of ``Codes``."""
    return pre[mask]
