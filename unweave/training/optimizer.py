"""What all optimizers of a coder share, and Adam: the gradient's norm is clipped, decoder rows keep theirs.

Decoder rows of unit norm have the part of their gradient along themselves removed before the step and are divided by
their norm after it (Bricken et al. 2023, Gao et al. 2024). Rows of norm at most one are divided by their norm after the
step where it is longer, and free rows are left alone. A step whose gradient is not finite changes nothing.

Adam is Kingma and Ba 2015, algorithm 1. With ``weight_decay`` each parameter loses first that share of itself, times
the learning rate (AdamW, Loshchilov and Hutter 2019); unit rows do not, as it would be undone at once. At beta1 = 0 no
mean gradient is kept, and without weight decay a row whose gradient is all zero is not visited: its step would be zero,
and v <- beta2^n v makes up, at the next step with a gradient, for the n that its second moment missed.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.coders import SparseCoder
from unweave.kernels.adam_rows import adam_rows, radial_parts

_EPS = 1e-8


@dataclass(frozen=True)
class Moments:
    """What an optimizer remembers of the gradients of one parameter."""

    mean: Tensor | None = None
    square: Tensor | None = None
    missed: Tensor | None = None
    """How many steps each row was not visited since its last; only where such rows need no step."""

    def named(self) -> dict[str, Tensor]:
        every = {"mean": self.mean, "square": self.square, "missed": self.missed}
        return {name: tensor for name, tensor in every.items() if tensor is not None}


class Stride(NamedTuple):
    """How far a step goes, for one parameter."""

    lr: float
    step: int
    """Steps so far, this one included."""
    scale: Float[Tensor, ""]
    """Factor on the gradient; where it is not finite, nothing may change."""
    along: Float[Tensor, " N"] | None
    """The part of each row's gradient along its weights, which is not used."""
    norm: str
    """What rows are afterwards: unit, at_most_one or free."""

    def used(self, weights: Tensor, gradient: Tensor) -> Tensor:
        """The gradient that a step uses, at the precision of moments."""
        tangent = gradient if self.along is None else gradient - self.along[:, None] * weights
        return tangent.to(wide(weights)) * self.scale

    def take(self, weights: Tensor, change: Tensor) -> None:
        """Subtract a change in place and give rows their norm, unless the gradient was not finite."""
        is_finite = self.scale.isfinite()
        weights.sub_(torch.where(is_finite, change, 0.0))
        if self.norm != "free":
            lengths = weights.norm(dim=1, keepdim=True).clamp(min=1e-12 if self.norm == "unit" else 1.0)
            weights.div_(torch.where(is_finite, lengths, 1.0))


class CoderOptimizer(ABC):
    """The optimizer of one coder; subclasses are final and say what they remember and how a parameter changes."""

    def __init__(self, coder: SparseCoder) -> None:
        self.coder = coder
        self.n_steps = 0
        self.moments = {name: self.no_moments(p) for name, p in coder.named_parameters() if p.requires_grad}

    @abstractmethod
    def no_moments(self, parameter: Tensor) -> Moments:
        """The moments of a parameter before the first step."""

    @abstractmethod
    def change(self, weights: Tensor, gradient: Tensor, moments: Moments, stride: Stride) -> None:
        """Change the weights and the moments of one parameter in place."""

    @torch.no_grad()
    def step(self, lr: float, clip: float) -> Float[Tensor, ""]:
        """One step from the gradients that the parameters hold, which are then dropped; returns their norm.

        ``clip``: the largest norm of the gradient that is used as it is, longer ones are scaled to it; 0: any.
        """
        gradients = {name: p.grad for name, p in self.coder.named_parameters() if p.grad is not None}
        along: Tensor | None = None
        squares = []
        for name, gradient in gradients.items():
            if name == "W_dec" and self.coder.config.decoder_norm == "unit":
                row_squares, along = radial_parts(gradient, self.coder.W_dec)
                squares.append(row_squares.sum())
            else:
                squares.append(torch.linalg.vector_norm(gradient, dtype=wide(gradient)).square())
        norm = self._over_all_parts(gradients, torch.stack(squares)).sum().sqrt()
        shorter = clip / norm.clamp(min=clip) if clip > 0 else torch.ones_like(norm)
        scale = torch.where(norm.isfinite(), shorter, torch.nan)
        self.n_steps += 1
        for name, gradient in gradients.items():
            stride = Stride(lr, self.n_steps, scale, None, "free")
            if name == "W_dec":
                stride = stride._replace(along=along, norm=self.coder.config.decoder_norm)
            self.change(self.coder.get_parameter(name).data, gradient, self.moments[name], stride)
        self.coder.zero_grad()
        return norm

    def _over_all_parts(self, gradients: dict[str, Tensor], squares: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The squared norm of each gradient, where each process may hold a part of the latents."""
        if self.coder.peers.n_latent_parts == 1:
            return squares
        in_parts = [self.coder.has_row_per_latent(name, gradient) for name, gradient in gradients.items()]
        of_all = self.coder.peers.over_latents(squares)
        return torch.where(torch.tensor(in_parts, device=squares.device), of_all, squares)

    @torch.no_grad()
    def forget_rows(self, latents: Int[Tensor, " n"]) -> None:
        """Reset the moments of some latents, of every parameter that has a row or a number for each latent."""
        for name in names_per_latent(self.coder):
            for moment in self.moments[name].named().values():
                moment[latents] = 0

    def state(self) -> dict[str, Tensor]:
        """All moments, as ``<parameter>.mean``, ``.square`` and ``.missed``, those that there are, and ``n_steps``."""
        moments = {f"{of}.{name}": m for of, moments in self.moments.items() for name, m in moments.named().items()}
        return moments | {"n_steps": torch.tensor(self.n_steps)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what ``state`` gave."""
        for of, moments in self.moments.items():
            for name, moment in moments.named().items():
                moment.copy_(state[f"{of}.{name}"])
        self.n_steps = int(state["n_steps"])


@final
class CoderAdam(CoderOptimizer):
    """Adam, or AdamW with a weight decay."""

    def __init__(
        self, coder: SparseCoder, betas: tuple[float, float], eps: float = _EPS, weight_decay: float = 0.0
    ) -> None:
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay
        super().__init__(coder)

    def no_moments(self, parameter: Tensor) -> Moments:
        if self.betas[0] > 0:
            return both_moments(parameter)
        if parameter.ndim < 2 or self.weight_decay > 0:
            return Moments(square=no_mean(parameter))
        missed = torch.zeros(parameter.shape[:-1], dtype=torch.int32, device=parameter.device)
        return Moments(square=no_mean(parameter), missed=missed)

    def change(self, weights: Tensor, gradient: Tensor, moments: Moments, stride: Stride) -> None:
        if self.weight_decay > 0 and stride.norm != "unit":
            weights.mul_(torch.where(stride.scale.isfinite(), 1.0 - stride.lr * self.weight_decay, 1.0))
        adam(weights, gradient, moments, stride, self.betas, self.eps)


def adam(
    weights: Tensor,
    gradient: Tensor,
    moments: Moments,
    stride: Stride,
    betas: tuple[float, float],
    eps: float = _EPS,
) -> None:
    """A step of Adam in place, on a tensor of any rank, with its last axis as the width of rows."""
    assert moments.square is not None
    width = gradient.shape[-1] if gradient.ndim else 1
    rows, square = weights.view(-1, width), moments.square.view(-1, width)  # a copy would swallow the step
    mean = None if moments.mean is None else moments.mean.view(-1, width)
    missed = None if moments.missed is None else moments.missed.view(-1)
    options: dict[str, Any] = {"lr": stride.lr, "step": stride.step, "norm": stride.norm, "missed": missed}
    adam_rows(
        rows, gradient.reshape(-1, width), mean, square, stride.scale, stride.along, betas=betas, eps=eps, **options
    )


def both_moments(parameter: Tensor) -> Moments:
    """Both moments of a parameter before the first step."""
    return Moments(no_mean(parameter), no_mean(parameter))


def no_mean(parameter: Tensor) -> Tensor:
    """A moment before the first step."""
    # in bfloat16 a step of 1 - beta2 = 0.001 would be lost to rounding
    return torch.zeros_like(parameter, dtype=wide(parameter))


def names_per_latent(coder: SparseCoder) -> list[str]:
    """Trained parameters that have a row or a number for each latent."""
    return [
        name
        for name, parameter in coder.named_parameters()
        if parameter.requires_grad and coder.has_row_per_latent(name, parameter)
    ]


def wide(tensor: Tensor) -> torch.dtype:
    """The precision of moments and of running means."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
