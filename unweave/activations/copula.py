"""Features that fire together or apart, each exactly as often as it should: a Gaussian copula of low rank.

Feature i fires where g_i = a_i . z + sqrt(1 - |a_i|^2) e_i exceeds the quantile t_i = -Phi^-1(p_i). z is one normal
vector per row, shared by all features, e_i is the feature's own. Every g_i is standard normal, so P(i fires) = p_i
whatever the loadings a_i, and g_i and g_j are correlated by a_i . a_j.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

_CELLS = 2**22
"""Rows times features that are drawn at once."""
_LONGEST = 0.99
"""Largest share of a feature's variance that may be shared with others."""


def random_loadings(n: int, rank: int, scale: float, generator: torch.Generator) -> Float[Tensor, "F R"]:
    """Normal loadings, float64; g_i shares about ``rank * scale**2`` of its variance with the others, at most 0.99."""
    loadings_FR = scale * torch.randn(n, rank, generator=generator, dtype=torch.float64)
    return loadings_FR * (_LONGEST**0.5 / loadings_FR.norm(dim=1, keepdim=True)).clamp(max=1)


def fire(
    n: int, probabilities_F: Float[Tensor, " F"], loadings_FR: Float[Tensor, "F R"], generator: torch.Generator
) -> tuple[Int[Tensor, " E"], Int[Tensor, " E"]]:
    """Rows and features of what fires in ``n`` rows, one block of features after the other."""
    device = probabilities_F.device
    thresholds_F = -torch.special.ndtri(probabilities_F.double()).float()
    own_F = (1 - loadings_FR.double().square().sum(1)).sqrt().float()
    z_BR = torch.randn(n, loadings_FR.shape[1], generator=generator, device=device)
    width = max(1, _CELLS // n)
    rows, features = [], []
    for start in range(0, len(probabilities_F), width):
        block = slice(start, start + width)
        own_BF = torch.randn(n, len(own_F[block]), generator=generator, device=device)
        g_BF = own_BF.mul_(own_F[block]).addmm_(z_BR, loadings_FR[block].float().T)
        row_ids, feature_ids = (g_BF > thresholds_F[block]).nonzero(as_tuple=True)
        rows.append(row_ids)
        features.append(feature_ids + start)
    return torch.cat(rows), torch.cat(features)
