"""Rounding rows and weights to bfloat16, and how far the rounded product can be from the exact one.

With x = x' + dx and w = w' + dw, ``|x.w - x'.w'| <= |dx| |w| + |x'| |dw|`` (Cauchy-Schwarz). Sums in float32 add at
most ``D * 2**-23 * |x| |w|`` for each of the two products, the proposed and the exact one (Higham 2002, section 3.1).
With r = max |dw|/|w| over latents, all of it is at most ``|w| * (|dx| + |x| * (1 + r) * (r + 2 D 2**-23))``. The
instructions for bfloat16 take subnormal numbers for 0, which counts as rounding here.
"""

from typing import NamedTuple

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unweave.kernels.compiled import array, loop, number, parallel

ROUNDING = 2.0**-8
"""Error of rounding a float32 product to bfloat16, as a share of the rounded product."""
_TINY = np.finfo(np.float32).tiny


class Rounded(NamedTuple):
    """A matrix in bfloat16, and for each row its norm and the norm of what rounding took away."""

    values: Float[Tensor, "N D"]
    norms: Float[Tensor, " N"]
    losses: Float[Tensor, " N"]


def rounded(matrix: Float[Tensor, "N D"]) -> Rounded:
    """Round a float32 matrix."""
    half = matrix.to(torch.bfloat16)
    norms, losses = matrix.new_empty(len(matrix)), matrix.new_empty(len(matrix))
    _norms(array(matrix), array(half), array(norms), array(losses))
    return Rounded(half, norms, losses)


def slack(x: Rounded, W: Rounded) -> Float[Tensor, " B"]:
    """For each row of x, the bound above in units of the norms of W's rows."""
    share = torch.where(W.norms > 0, W.losses / W.norms, 0.0).max()
    summing = 2 * x.values.shape[1] * 2.0**-23
    return x.losses + x.norms * (1 + share) * (share + summing)


@parallel
def _norms(exact, half, norms, losses):  # type: ignore[no-untyped-def]
    for i in numba.prange(exact.shape[0]):
        norms[i], losses[i] = _row_norms(exact[i], half[i])


@loop
def _row_norms(exact, half):  # type: ignore[no-untyped-def]
    total, lost = 0.0, 0.0  # squares of float32 numbers neither overflow nor vanish in float64
    for d in range(exact.shape[0]):
        value, seen = np.float64(exact[d]), np.float64(number(half[d]))
        gap = value - (seen if abs(seen) >= _TINY else 0.0)
        total += value * value
        lost += gap * gap
    return np.sqrt(total), np.sqrt(lost)
