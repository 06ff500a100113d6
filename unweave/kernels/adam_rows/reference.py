"""An Adam step on rows, defined: plain tensor operations, one after the other."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def radial_parts(gradient: Float[Tensor, "N D"], weights: Float[Tensor, "N D"]) -> tuple[Tensor, Tensor]:
    """For each row g of the gradient and w of the weights: ``g.g`` without its part along w, and ``g.w / w.w``."""
    along = (gradient * weights).sum(1) / weights.square().sum(1).clamp(min=1e-30)
    tangent = gradient - along[:, None] * weights
    return tangent.square().sum(1), along


def adam_rows(
    weights: Float[Tensor, "N D"],
    gradient: Float[Tensor, "N D"],
    mean: Float[Tensor, "N D"] | None,
    square: Float[Tensor, "N D"],
    scale: Float[Tensor, ""],
    along: Float[Tensor, " N"] | None,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    step: int,
    norm: str,
    missed: Int[Tensor, " N"] | None = None,
) -> None:
    """Kingma and Ba 2015, algorithm 1, in place, with the gradient times ``scale``; nothing where that is not finite.

    ``along``: the part of each row's gradient along its weights, which is removed. ``norm``: rows are divided by their
    norm afterwards where it is ``unit``, and where it is ``at_most_one`` if they are longer than 1. ``mean`` may be
    missing where its decay is 0. With ``missed``, which needs that, a row whose gradient is all zero is left as it is
    and its ``missed`` goes up by one; a later step makes up for what its ``square`` missed and sets it to 0.
    """
    if not bool(scale.isfinite()):
        return
    if missed is not None:
        _rows_with_gradient(weights, gradient, square, scale, along, missed, lr, betas, eps, step, norm)
        return
    used = gradient if along is None else gradient - along[:, None] * weights
    used = used.to(square.dtype) * scale
    mean = used if mean is None else mean.lerp_(used, 1 - betas[0])
    square.mul_(betas[1]).addcmul_(used, used, value=1 - betas[1])
    denominator = (square / (1 - betas[1] ** step)).sqrt() + eps
    weights.sub_(lr * (mean / (1 - betas[0] ** step)) / denominator)
    if norm != "free":
        lengths = weights.norm(dim=1, keepdim=True)
        weights.div_(lengths.clamp(min=1e-12 if norm == "unit" else 1.0))


def _rows_with_gradient(
    weights: Float[Tensor, "N D"],
    gradient: Float[Tensor, "N D"],
    square: Float[Tensor, "N D"],
    scale: Float[Tensor, ""],
    along: Float[Tensor, " N"] | None,
    missed: Int[Tensor, " N"],
    lr: float,
    betas: tuple[float, float],
    eps: float,
    step: int,
    norm: str,
) -> None:
    rows = (gradient != 0).any(1).nonzero().flatten()
    own_weights, own_along = weights[rows], None if along is None else along[rows]
    decay = torch.tensor(betas[1], dtype=torch.float64, device=square.device) ** missed[rows]
    own_square = square[rows] * decay.to(square.dtype)[:, None]
    options = {"lr": lr, "betas": betas, "eps": eps, "step": step, "norm": norm}
    adam_rows(own_weights, gradient[rows], None, own_square, scale, own_along, **options)
    weights[rows], square[rows] = own_weights, own_square
    missed += 1
    missed[rows] = 0
