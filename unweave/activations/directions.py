"""Unit directions for features, as many as wanted, and how to spread them so that they overlap little.

Random directions overlap by chance. The sum of all squared dot products, sum_ij (f_i . f_j)^2, is at least n^2 / D for
n >= D unit directions (Welch 1974), with equality for tight frames; n <= D directions can be orthogonal. Both are found
by turns: go to the nearest tight frame, then back to unit length (Tropp, Dhillon, Heath and Strohmer 2005, "Designing
structured tight frames via an alternating projection method"). A turn costs n D min(n, D), never n^2 for n > D.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def unit_directions(n: int, d_model: int, generator: torch.Generator) -> Float[Tensor, "F D"]:
    """Directions drawn uniformly from the sphere, in float64."""
    return F.normalize(torch.randn(n, d_model, generator=generator, dtype=torch.float64), dim=1)


def spread_out(directions_FD: Float[Tensor, "F D"], turns: int) -> Float[Tensor, "F D"]:
    """Nearby unit directions with smaller pairwise dot products; 10 turns come close to the smallest possible sum."""
    for _ in range(turns):
        directions_FD = F.normalize(_nearest_tight_frame(directions_FD), dim=1)
    return directions_FD


def _nearest_tight_frame(X_FD: Float[Tensor, "F D"]) -> Float[Tensor, "F D"]:
    """The polar factor of X, which has all singular values 1, through the smaller of its two Gram matrices."""
    n, d_model = X_FD.shape
    if n <= d_model:
        return _inverse_root(X_FD @ X_FD.T) @ X_FD
    return X_FD @ _inverse_root(X_FD.T @ X_FD)


def _inverse_root(gram: Float[Tensor, "N N"]) -> Float[Tensor, "N N"]:
    eigenvalues, vectors = torch.linalg.eigh(gram)
    return (vectors * eigenvalues.clamp(min=1e-12).rsqrt()) @ vectors.T
