"""Turn a coder trained on scaled or whitened rows into one that reads and writes the model's own, exactly.

Rows at each site are trained on as z = (x - m) M, with M a number or a matrix (whitening, arXiv 2511.13981).
Activations are positively homogeneous in everything that has their unit, so after dividing those by one number s the
coder has activations f/s and writes the same. With s the scale of what is written, decoder rows keep their norm.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.coders.base import SparseCoder


@dataclass(frozen=True)
class Scaling:
    """How rows at one site are changed for training: ``z = (x - mean) * factor``, or ``@ matrix`` to whiten."""

    factor: float = 1.0
    mean: Float[Tensor, " D"] | None = None
    matrix: Float[Tensor, "D D"] | None = None

    def __call__(self, x_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        centred = x_BD if self.mean is None else x_BD - self.mean
        return centred * self.factor if self.matrix is None else centred @ self.matrix

    @cached_property
    def inverse(self) -> "Scaling":
        """The scaling that takes rows back; folding it into a finished coder gives the coder as it was in training."""
        if self.matrix is None:
            mean = None if self.mean is None else -self.factor * self.mean
            return Scaling(1.0 / self.factor, mean)
        mean = None if self.mean is None else -self.mean @ self.matrix
        return Scaling(1.0, mean, torch.linalg.inv(self.matrix.double()).to(self.matrix))


@torch.no_grad()
def fold_scaling(coder: SparseCoder, reads: list[Scaling], writes: list[Scaling]) -> None:
    """Change the weights in place so that the coder works on rows as they are, given the scaling of every port."""
    coder.settle()
    unit = writes[0].factor
    d_reads = [port.width for port in coder.wiring.reads]
    d_writes = [port.width for port in coder.wiring.writes]
    offset = torch.cat([_mean(s, d, coder.b_dec) for s, d in zip(reads, d_reads, strict=True)])
    b_dec = coder.b_dec.clone()
    for name in coder.readers + coder.unitless_readers:
        weights = getattr(coder, name)
        weights.copy_(_after(weights, reads, d_reads))
        if name in coder.readers:
            weights.div_(unit)
    for name in coder.in_activation_units:
        getattr(coder, name).div_(unit)
    coder.W_dec.copy_(_before(coder.W_dec, writes, d_writes) * unit)
    coder.b_dec.copy_(_before(b_dec[None], writes, d_writes)[0])
    if coder.W_skip is not None:
        coder.W_skip.copy_(_before(_after(coder.W_skip, reads, d_reads).T, writes, d_writes).T)
    if not coder.config.centre and offset.any():
        coder.shift_input(offset)
    shift = torch.cat([_mean(s, d, coder.b_dec) for s, d in zip(writes, d_writes, strict=True)])
    coder.b_dec.add_(shift)
    if coder.W_skip is not None and offset.any():
        coder.b_dec.sub_(coder.W_skip @ offset)


@torch.no_grad()
def fold_decoder_norms(coder: SparseCoder) -> None:
    """Make every decoder row a unit vector and move its norm into the activation; the coder writes the same."""
    assert coder.per_latent, f"latents of {type(coder).__name__} cannot be rescaled one by one"
    norms = coder.W_dec.norm(dim=1).clamp(min=1e-12)
    for name in coder.per_latent:
        tensor = getattr(coder, name)
        tensor.mul_(norms[:, None] if tensor.ndim == 2 else norms)
    coder.W_dec.div_(norms[:, None])


def _mean(scaling: Scaling, width: int, like: Tensor) -> Tensor:
    return like.new_zeros(width) if scaling.mean is None else scaling.mean.to(like)


def _after(weights: Tensor, scalings: list[Scaling], widths: list[int]) -> Tensor:
    """Weights on x from weights on z: each site's columns times M, transposed."""
    pairs = zip(weights.split(widths, dim=1), scalings, strict=True)
    return torch.cat([p * s.factor if s.matrix is None else p @ s.matrix.to(p).T for p, s in pairs], 1)


def _before(weights: Tensor, scalings: list[Scaling], widths: list[int]) -> Tensor:
    """Rows in units of x from rows in units of z: each site's columns times the inverse of M."""
    pairs = zip(weights.split(widths, dim=1), scalings, strict=True)
    return torch.cat([p / s.factor if s.matrix is None else p @ torch.linalg.inv(s.matrix).to(p) for p, s in pairs], 1)
