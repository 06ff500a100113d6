"""How alike two sets of decoder rows are once their latents are paired, whatever the widths: CKA, SVCCA and RSA.

With X [P, D] and Y [P, D'] the rows of P pairs of latents, each column centred:

    cka     |Y^T X|^2 / (|X^T X| |Y^T Y|), Frobenius norms, linear (Kornblith et al. 2019, arXiv 1905.00414)
    svcca   the leading left singular vectors of each up to 99 % of its variance, then the mean singular value of the
            product of the two bases, which are the canonical correlations (Raghu et al. 2017, arXiv 1706.05806)
    rsa     Spearman's correlation of all distances between rows of X with those of Y (Kriegeskorte et al. 2008)

All three are blind to rotations, so they compare spaces of other models (Lan et al. 2024, arXiv 2410.06981). They are
far above 0 for unrelated rows too, svcca 1 where there are fewer pairs than directions, so each comes with its mean
over random pairings of the same rows and p = (1 + #{null >= observed}) / (1 + draws).
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unweave.analysis.matching import Null
from unweave.errors import UserError
from unweave.metrics.base import Definition

_VARIANCE = 0.99
_RSA_PAIRS = 2048
"""Pairs of latents whose distances are compared; their number grows with the square."""
_TITLES = {"cka": "Linear CKA", "svcca": "SVCCA", "rsa": "RSA"}
_MEANINGS = {
    "cka": "Linear centred kernel alignment of the decoder rows of paired latents.",
    "svcca": "Mean canonical correlation of the leading directions of the decoder rows of paired latents.",
    "rsa": "Rank correlation of the distances between latents in one decoder with those in the other.",
}

DEFINITIONS = tuple(
    definition
    for name in _TITLES
    for definition in (
        Definition(name, _TITLES[name], _MEANINGS[name], "far above its mean over random pairings"),
        Definition(
            f"{name}_shuffled",
            f"{_TITLES[name]} of random pairs",
            "The same figure with the latents of one coder paired at random, averaged over random pairings.",
            "a floor",
        ),
        Definition(
            f"{name}_p",
            f"Chance of that {_TITLES[name]}",
            "Share of random pairings that reach the figure observed, that one counted too.",
            "as small as the number of pairings allows",
        ),
    )
)


def similarity_figures(
    X_PD: Float[Tensor, "P D"], Y_PD: Float[Tensor, "Q _"], *, draws: int = 20, seed: int = 0
) -> dict[str, float]:
    """All three of paired rows, each with its floor. RSA is of 2048 pairs drawn at random where there are more."""
    X, Y = _paired(X_PD, Y_PD)
    if draws < 1:
        raise UserError(f"a null needs at least 1 draw, got {draws}")
    figures: dict[str, float] = {}
    few = torch.randperm(len(X), generator=torch.Generator().manual_seed(seed))[:_RSA_PAIRS]
    scores = {"cka": _cka(X, Y), "svcca": _svcca(X, Y), "rsa": _rsa(X[few], Y[few])}
    for name, score in scores.items():
        n = len(few) if name == "rsa" else len(X)
        generator = torch.Generator().manual_seed(seed)
        drawn = [score(torch.randperm(n, generator=generator)) for _ in range(draws)]
        null = Null(score(torch.arange(n)), drawn)
        figures |= {name: null.observed, f"{name}_shuffled": null.mean, f"{name}_p": null.p}
    return figures


def cka(X_PD: Float[Tensor, "P D"], Y_PD: Float[Tensor, "Q _"]) -> float:
    """1 for the same rows up to rotation and scale."""
    return _cka(*_paired(X_PD, Y_PD))(torch.arange(len(X_PD)))


def svcca(X_PD: Float[Tensor, "P D"], Y_PD: Float[Tensor, "Q _"]) -> float:
    """1 where the smaller of the two leading spaces lies in the other."""
    return _svcca(*_paired(X_PD, Y_PD))(torch.arange(len(X_PD)))


def rsa(X_PD: Float[Tensor, "P D"], Y_PD: Float[Tensor, "Q _"]) -> float:
    """1 where distances are in the same order. Holds P^2 distances."""
    return _rsa(*_paired(X_PD, Y_PD))(torch.arange(len(X_PD)))


def _cka(X: Tensor, Y: Tensor) -> Callable[[Tensor], float]:
    """The score of a pairing, where row ``order[i]`` of Y belongs to row i of X."""
    X, Y = X - X.mean(0), Y - Y.mean(0)
    norm = (X.T @ X).norm() * (Y.T @ Y).norm()
    return lambda order: ((Y[order].T @ X).square().sum() / norm).item() if norm > 0 else math.nan


def _svcca(X: Tensor, Y: Tensor) -> Callable[[Tensor], float]:
    P, Q = _leading(X - X.mean(0)), _leading(Y - Y.mean(0))
    return lambda order: torch.linalg.svdvals(P.T @ Q[order]).mean().clamp(max=1.0).item()


def _leading(X: Tensor) -> Tensor:
    """Left singular vectors up to the share of the variance."""
    U, S, _ = torch.linalg.svd(X, full_matrices=False)
    share = S.square().cumsum(0) / S.square().sum()
    return U[:, : int((share < _VARIANCE).sum()) + 1]


def _rsa(X: Tensor, Y: Tensor) -> Callable[[Tensor], float]:
    """Ranks are found once; a pairing only moves those of Y."""
    n = len(X)
    above = torch.triu_indices(n, n, 1)
    ranks_X, ranks_Y = _ranks(X, above), _ranks(Y, above)
    square_Y = torch.zeros(n, n, dtype=torch.float64)
    square_Y[above[0], above[1]] = square_Y[above[1], above[0]] = ranks_Y
    norm = ranks_X.norm() * ranks_Y.norm()
    if norm == 0:
        return lambda order: math.nan
    return lambda order: (ranks_X @ square_Y[order[above[0]], order[above[1]]] / norm).item()


def _ranks(X: Tensor, above: Tensor) -> Tensor:
    """Ranks of distances about their mean, equals sharing theirs."""
    from scipy.stats import rankdata

    distances = torch.cdist(X, X, compute_mode="donot_use_mm_for_euclid_dist")[above[0], above[1]]
    ranks = torch.from_numpy(rankdata(distances.numpy()).astype(np.float64))
    return ranks - ranks.mean()


def _paired(X_PD: Tensor, Y_PD: Tensor) -> tuple[Tensor, Tensor]:
    """Both in double precision, on the CPU."""
    if len(X_PD) != len(Y_PD) or len(X_PD) < 3:
        raise UserError(
            f"similarity needs the rows of at least 3 pairs of latents, got {len(X_PD)} and {len(Y_PD)} rows; index "
            "both decoders with one matching"
        )
    return X_PD.detach().cpu().double(), Y_PD.detach().cpu().double()
