"""An Adam step on the rows of a matrix: update, decoder projection and renormalisation in one pass over memory."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.kernels.adam_rows import reference
from unweave.kernels.device import on_gpu


@torch.no_grad()
def radial_parts(gradient: Float[Tensor, "N D"], weights: Float[Tensor, "N D"]) -> tuple[Tensor, Tensor]:
    """For each row g of the gradient and w of the weights: ``g.g`` without its part along w, and ``g.w / w.w``."""
    if on_gpu(weights):
        from unweave.kernels.adam_rows import gpu

        return gpu.radial_parts(gradient, weights)
    if not _compiles(weights):
        return reference.radial_parts(gradient, weights)
    from unweave.kernels.adam_rows import cpu

    return cpu.radial_parts(gradient, weights)


@torch.no_grad()
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
    assert mean is not None or betas[0] == 0, "without a mean there is no memory of it"
    assert mean is None or missed is None, "a mean moves rows that have no gradient"
    options = {"lr": lr, "betas": betas, "eps": eps, "step": step, "norm": norm, "missed": missed}
    if on_gpu(weights):
        from unweave.kernels.adam_rows import gpu

        gpu.adam_rows(weights, gradient, mean, square, scale, along, **options)
        return
    if not _compiles(weights):
        reference.adam_rows(weights, gradient, mean, square, scale, along, **options)
        return
    from unweave.kernels.adam_rows import cpu

    cpu.adam_rows(weights, gradient, mean, square, scale, along, **options)


def _compiles(weights: Tensor) -> bool:
    return weights.device.type == "cpu" and weights.dtype in (torch.float32, torch.float64)
