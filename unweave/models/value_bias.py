"""The constant that value biases add to the outputs of a block's heads.

Attention takes means of values over positions, so whatever is in the value of every position is in every output. Where
what the norm in front of attention gives before its weight and bias is put to zero everywhere, all values are
b_V + W_V b with b the norm's bias, and so are the outputs, for any layout of the projections. TransformerLens moves
this constant into the bias of the output projection (``fold_ln`` and ``fold_value_biases``).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.models.hooks import read_at, replace_at
from unweave.models.inputs import forward, random_inputs
from unweave.models.site import Site

_TOKENS = 5


@torch.no_grad()
def value_bias(model: Any, points: dict[str, Site], point: str) -> Float[Tensor, " D"] | None:
    """The constant in ``attn.z`` or ``attn.v`` of a block; None where it is zero, or where they are not constant."""
    if "ln1.normalized" not in points or point not in points:
        return None
    seen: list[Tensor] = []
    handles = replace_at(model, points["ln1.normalized"], lambda _, x: torch.zeros_like(x))
    try:
        handles += read_at(model, points[point], lambda _, x: seen.append(x.clone()))
        inputs = random_inputs(model, _TOKENS, torch.Generator().manual_seed(63))
        forward(model, inputs.to(next(model.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    z_BD = seen[0].flatten(0, 1)
    constant_D = z_BD.mean(0)
    slack = min(0.1, 1000 * torch.finfo(z_BD.dtype).eps)
    if constant_D.abs().max() == 0 or (z_BD - constant_D).abs().max() > slack * constant_D.abs().max():
        return None
    return constant_D
