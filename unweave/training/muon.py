"""Muon: matrices move by their momentum with all singular values made about equal (Jordan 2024).

With gradient G, M <- beta1 M + (1 - beta1) G and U = beta1 M + (1 - beta1) G (Nesterov), a matrix W of N x D moves by
-lr * 0.2 sqrt(max(N, D)) * O(U). The factor makes the step about as large as Adam's, so one learning rate serves both
(Liu et al. 2025, arXiv 2502.16982). O divides U by its Frobenius norm and repeats five times X <- a X + (b A + c A^2) X
with A = X X^T, which brings singular values into about 0.7 to 1.2; it is done in bfloat16, as in the author's code.
Vectors and numbers move by Adam. Source: https://kellerjordan.github.io/posts/muon
"""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.coders import SparseCoder
from unweave.training.optimizer import CoderOptimizer, Moments, Stride, adam, both_moments, no_mean

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5
_SIZE_OF_ADAM = 0.2
"""Root mean square of a typical step of Adam, in units of the learning rate."""


@final
class CoderMuon(CoderOptimizer):
    """See the module's docstring for the maths."""

    def __init__(self, coder: SparseCoder, betas: tuple[float, float]) -> None:
        super().__init__(coder)
        self.betas = betas

    def no_moments(self, parameter: Tensor) -> Moments:
        return Moments(no_mean(parameter)) if parameter.ndim == 2 else both_moments(parameter)

    def change(self, weights: Tensor, gradient: Tensor, moments: Moments, stride: Stride) -> None:
        if weights.ndim != 2:
            adam(weights, gradient, moments, stride, self.betas)
            return
        assert moments.mean is not None
        used = stride.used(weights, gradient)
        mean = moments.mean.lerp(used, 1.0 - self.betas[0])
        ahead = used.lerp(mean, self.betas[0])
        moments.mean.copy_(torch.where(stride.scale.isfinite(), mean, moments.mean))
        rate = stride.lr * _SIZE_OF_ADAM * math.sqrt(max(weights.shape))
        stride.take(weights, rate * orthogonal(ahead).to(ahead.dtype))


def orthogonal(U_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """The matrix with singular values near 1 and the singular vectors of ``U``, in bfloat16."""
    a, b, c = _COEFFICIENTS
    is_tall = U_ND.shape[0] > U_ND.shape[1]
    X = U_ND.bfloat16().T if is_tall else U_ND.bfloat16()
    X = X / X.norm().clamp(min=1e-7)
    for _ in range(_ROUNDS):
        A = X @ X.T
        X = torch.addmm(X, torch.addmm(A, A, A, beta=b, alpha=c), X, beta=a)
    return X.T if is_tall else X
