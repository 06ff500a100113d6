"""LayerNorm and RMSNorm: what they make of a row before their weight and bias, and what their weight really is.

With m the mean of a row x over its width, LayerNorm (Ba et al. 2016, arXiv 1607.06450) gives
(x - m) / sqrt(mean((x - m)^2) + eps) * w + b, and RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467) the same with
m = 0 and no b. Gemma multiplies by 1 + w in place of w; some norms have no weight.
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

_TOLERANCE = 8
"""Relative roundings that an element may be off."""

Weight = Literal["weight", "one_plus_weight", "none"]


class Norm(NamedTuple):
    """How one norm module works."""

    is_centred: bool
    """LayerNorm takes the mean of a row away."""
    eps: float
    weight: Weight
    """What the normalised row is multiplied by."""

    def normalised(self, x: Tensor) -> Tensor:
        """The rows before weight and bias."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.is_centred:
            wide = wide - wide.mean(-1, keepdim=True)
        return (wide / (wide.square().mean(-1, keepdim=True) + self.eps).sqrt()).to(x.dtype)

    def effective_weight(self, module: Any) -> Tensor | float:
        """What the normalised rows of this module are multiplied by."""
        if self.weight == "none":
            return 1.0
        weight = whole(module.weight)
        return 1.0 + weight if self.weight == "one_plus_weight" else weight


def recognise(module: nn.Module, x: Tensor, y: Tensor, dtype: torch.dtype) -> Norm | None:
    """How a module normalises, which in this precision has given ``y`` for ``x``; None where it is no such norm."""
    eps = next((getattr(module, name) for name in ("eps", "variance_epsilon") if hasattr(module, name)), None)
    if not isinstance(eps, float) or x.shape != y.shape:
        return None
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    shift = whole(bias).to(y) if isinstance(bias, Tensor) else torch.zeros((), dtype=y.dtype)
    kinds: list[Weight] = ["weight", "one_plus_weight"] if isinstance(weight, Tensor) else ["none"]
    tolerance = _TOLERANCE * max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)  # some always use float32
    has_bias = hasattr(module, "bias")  # where the rows of a probe have a mean of zero, it is all that tells
    for is_centred in (has_bias, not has_bias):
        for kind in kinds:
            norm = Norm(is_centred, eps, kind)
            scale = torch.as_tensor(norm.effective_weight(module)).to(y)
            scaled = norm.normalised(x) * scale
            if bool(((scaled + shift - y).abs() <= tolerance * (scaled.abs() + shift.abs() + y.abs() + 1)).all()):
                return norm
    return None


def whole(weight: Any) -> Tensor:
    """A weight with the parts of all processes, of a model that is spread over them."""
    return weight.full_tensor() if hasattr(weight, "full_tensor") else weight
