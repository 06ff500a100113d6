"""An Adam step on rows, defined: plain tensor operations, one after the other."""

from jaxtyping import Float
from torch import Tensor


def radial_parts(gradient: Float[Tensor, "N D"], weights: Float[Tensor, "N D"]) -> tuple[Tensor, Tensor]:
    """For each row g of the gradient and w of the weights: ``g.g`` without its part along w, and ``g.w / w.w``."""
    along = (gradient * weights).sum(1) / weights.square().sum(1).clamp(min=1e-30)
    tangent = gradient - along[:, None] * weights
    return tangent.square().sum(1), along


def adam_rows(
    weights: Float[Tensor, "N D"],
    gradient: Float[Tensor, "N D"],
    mean: Float[Tensor, "N D"],
    square: Float[Tensor, "N D"],
    scale: Float[Tensor, ""],
    along: Float[Tensor, " N"] | None,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    step: int,
    norm: str,
) -> None:
    """Kingma and Ba 2015, algorithm 1, in place, with the gradient times ``scale``; nothing where that is not finite.

    ``along``: the part of each row's gradient along its weights, which is removed. ``norm``: rows are divided by their
    norm afterwards where it is ``unit``, and where it is ``at_most_one`` if they are longer than 1.
    """
    if not bool(scale.isfinite()):
        return
    used = gradient if along is None else gradient - along[:, None] * weights
    used = used.to(mean.dtype) * scale
    mean.lerp_(used, 1 - betas[0])
    square.mul_(betas[1]).addcmul_(used, used, value=1 - betas[1])
    denominator = (square / (1 - betas[1] ** step)).sqrt() + eps
    weights.sub_(lr * (mean / (1 - betas[0] ** step)) / denominator)
    if norm != "free":
        lengths = weights.norm(dim=1, keepdim=True)
        weights.div_(lengths.clamp(min=1e-12 if norm == "unit" else 1.0))
