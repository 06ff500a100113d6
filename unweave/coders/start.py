"""Where a coder starts, given a first sample of what it reads and writes.

``b_dec`` starts at the mean of what is written or at its geometric median (Bricken et al. 2023). A coder that does not
centre its input starts with ``b_enc = -W_enc @ mean(x)``, so that no latent is on or off for the mean alone. Decoder
rows may start in the span of the leading principal directions of what is written, which keeps latents of
low-dimensional sites such as attention outputs alive (Wang et al. 2025, arXiv 2508.16929).
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from unweave.coders.base import SparseCoder


def start(coder: "SparseCoder", x_BD: Float[Tensor, "B D_read"], y_BD: Float[Tensor, "B D_write"]) -> None:
    """Set the biases, and the decoder and encoder where they start in a subspace."""
    config = coder.config
    if config.bias_start == "mean":
        coder.b_dec.copy_(y_BD.mean(0))
    elif config.bias_start == "geometric_median":
        coder.b_dec.copy_(geometric_median(y_BD))
    if config.active_subspace:
        basis = leading_directions(y_BD, config.active_subspace)
        inside = coder.W_dec @ basis.T @ basis
        coder.W_dec.copy_(config.decoder_init_norm * F.normalize(inside, dim=1))
        if coder.wiring.d_read == coder.wiring.d_write and "W_enc" in coder.readers:
            coder.W_enc.copy_(config.encoder_init_gain * coder.W_dec)
    if not config.centre and config.bias_start != "zero":
        coder.shift_input(x_BD.mean(0))


def geometric_median(x_BD: Float[Tensor, "B D"], iterations: int = 100) -> Float[Tensor, " D"]:
    """The point with the least sum of distances to the rows, by Weiszfeld's iteration from the mean."""
    point = x_BD.mean(0)
    for _ in range(iterations):
        weights = 1.0 / (x_BD - point).norm(dim=1).clamp(min=1e-12)
        moved = weights @ x_BD / weights.sum()
        if (moved - point).norm() <= 1e-6 * point.norm():
            return moved
        point = moved
    return point


def leading_directions(y_BD: Float[Tensor, "B D"], count: int) -> Float[Tensor, "count D"]:
    """The principal directions of the rows with the largest variance, as orthonormal rows."""
    centred = (y_BD - y_BD.mean(0)).double()
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    return vectors[:, -count:].T.to(y_BD.dtype)
