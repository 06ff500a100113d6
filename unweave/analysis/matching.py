"""Which latents of two coders of one width are the same: matching of decoder rows, across seeds, sizes and layers.

With c_ij = |cos(d_i, d'_j)| for the decoder rows of two coders with L and M latents:

    mmcs       mean over i of max_j c_ij, and the other way round (Sharkey et al. 2022); several i may share a j
    mcc        mean of c over the min(L, M) pairs of the one-to-one matching with the largest sum (Song et al. 2025,
               arXiv 2505.20254); TopK coders of language models reach about 0.8 over seeds
    shared     pairs of that matching of which both cos(d_i, d'_j) and cos(w_i, w'_j), with w the encoder rows, are over
               0.7; the sign counts here (Paulo and Belrose 2025, arXiv 2501.16615)

The floor of mmcs is the mean of the largest of M random cosines (``cosines.py``). A null that keeps each decoder's own
structure turns one of them by random rotations; with n of them, p = (1 + #{null >= observed}) / (1 + n) (Phipson and
Smyth 2010).

The matching is exact, by the Hungarian algorithm, where the smaller side has at most 4096 latents and there are at most
2^26 pairs. Beyond that it is the best matching among each latent's 50 nearest on either side; what that leaves over is
matched in the same way.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.analysis.cosines import Pairs, all_cosines, check_widths, nearest, paired, random_nearest
from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.metrics.base import Definition

EXACT_UP_TO = 4096
"""Latents of the smaller coder up to which the matching is exact; the time grows with the cube."""
SHARED_OVER = 0.7
_EXACT_CELLS = 2**26
"""Cosines up to which the matching is exact; in double precision they take half a gigabyte."""
_NEIGHBOURS = 50
_LEAST = 1e-9
"""Weight of an edge to nobody; a weight of 0 would be no edge."""

DEFINITIONS = (
    Definition(
        "mmcs",
        "Mean max cosine",
        "Largest absolute cosine of each latent of the first coder with any latent of the second, averaged.",
        "far above that of random directions; near 1 for coders that found the same",
    ),
    Definition(
        "mmcs_back",
        "Mean max cosine, back",
        "Largest absolute cosine of each latent of the second coder with any latent of the first, averaged.",
        "far above that of random directions",
    ),
    Definition(
        "mmcs_of_random",
        "Mean max cosine of random directions",
        "What the mean max cosine would be if the second coder's decoder rows were random directions.",
        "a floor",
    ),
    Definition(
        "mmcs_back_of_random",
        "Mean max cosine of random directions, back",
        "What the mean max cosine would be if the first coder's decoder rows were random directions.",
        "a floor",
    ),
    Definition(
        "mcc_of_coders",
        "Matched cosine",
        "Absolute cosine under the best one-to-one matching of the two coders' latents, averaged over the pairs.",
        "about 0.8 between seeds; far above the mean over rotations",
    ),
    Definition(
        "shared_latents",
        "Shared latents",
        "Share of the smaller coder's latents whose match has a cosine over 0.7 in both encoder and decoder.",
        "0.3 to 0.8 between seeds, less for wider coders",
    ),
    Definition(
        "mmcs_rotated",
        "Mean max cosine after a rotation",
        "Mean max cosine with the second decoder turned by random rotations, averaged over them.",
        "a floor that keeps each decoder's own structure",
    ),
    Definition(
        "mmcs_p",
        "Chance of that mean max cosine",
        "Share of random rotations that reach the mean max cosine observed, that one counted too.",
        "as small as the number of rotations allows",
    ),
    Definition(
        "mcc_rotated",
        "Matched cosine after a rotation",
        "Matched cosine with the second decoder turned by random rotations, averaged over them.",
        "a floor that keeps each decoder's own structure",
    ),
    Definition(
        "mcc_p",
        "Chance of that matched cosine",
        "Share of random rotations that reach the matched cosine observed, that one counted too.",
        "as small as the number of rotations allows",
    ),
)


class Null(NamedTuple):
    """An observed figure among those that arise by chance."""

    observed: float
    drawn: list[float]

    @property
    def mean(self) -> float:
        return sum(self.drawn) / len(self.drawn)

    @property
    def p(self) -> float:
        """The chance of a figure at least as large."""
        return (1 + sum(value >= self.observed for value in self.drawn)) / (1 + len(self.drawn))


class Compared(NamedTuple):
    """The figures of two coders, and the one-to-one matching of their latents by decoder rows."""

    figures: dict[str, float]
    matching: Pairs
    is_shared: Tensor | None
    """Which of the pairs are shared; None where a coder has no encoder rows."""


def compare_coders(first: SparseCoder, second: SparseCoder, *, draws: int = 0, seed: int = 0) -> Compared:
    """Everything above of two coders that write in spaces of one width.

    ``draws`` rotations are made for the null, each of which costs as much as the comparison; figures of the null are
    NaN without any.
    """
    W, other = first.W_dec.detach(), second.W_dec.detach()
    matching = match(W, other)
    figures = direction_figures(W, other) | {"mcc_of_coders": matching.strength.abs().mean().item()}
    shared = _shared(matching, first, second)
    figures["shared_latents"] = math.nan if shared is None else shared.double().mean().item()
    scores = {"mmcs": (mmcs, figures["mmcs"]), "mcc": (mean_matched, figures["mcc_of_coders"])}
    for name, (score, observed) in scores.items():
        null = rotation_null(W, other, score, observed, draws=draws, seed=seed) if draws else None
        figures[f"{name}_rotated"] = math.nan if null is None else null.mean
        figures[f"{name}_p"] = math.nan if null is None else null.p
    return Compared(figures, matching, shared)


def direction_figures(W_LD: Float[Tensor, "L D"], other_MD: Float[Tensor, "M _"]) -> dict[str, float]:
    """Mean max cosine both ways, with its floors."""
    width = W_LD.shape[1]
    return {
        "mmcs": mmcs(W_LD, other_MD),
        "mmcs_back": mmcs(other_MD, W_LD),
        "mmcs_of_random": random_nearest(len(other_MD), width),
        "mmcs_back_of_random": random_nearest(len(W_LD), width),
    }


def mmcs(W_LD: Float[Tensor, "L D"], other_MD: Float[Tensor, "M _"]) -> float:
    """Mean over the first of the largest absolute cosine with the second."""
    return nearest(W_LD, other_MD, signed=False).cosines.abs().mean().item()


def mean_matched(W_LD: Float[Tensor, "L D"], other_MD: Float[Tensor, "M _"]) -> float:
    """Mean absolute cosine of the one-to-one matching."""
    return match(W_LD, other_MD).strength.abs().mean().item()


def match(W_LD: Float[Tensor, "L D"], other_MD: Float[Tensor, "M _"], *, exact_up_to: int = EXACT_UP_TO) -> Pairs:
    """The one-to-one matching with the largest sum of absolute cosines, ordered by the first; strengths have a sign.

    Holds all cosines where the smaller side has at most ``exact_up_to`` rows, blocks of 2^24 otherwise.
    """
    check_widths(W_LD, other_MD)
    if len(W_LD) > len(other_MD):
        return _ordered(_turned(match(other_MD, W_LD, exact_up_to=exact_up_to)))
    if len(W_LD) <= exact_up_to and len(W_LD) * len(other_MD) <= _EXACT_CELLS:
        return _match_exactly(W_LD, other_MD)
    found = _match_neighbours(W_LD, other_MD)
    left, free = _others(found.first, len(W_LD)), _others(found.second, len(other_MD))
    if len(left):
        rest = match(W_LD[left], other_MD[free], exact_up_to=exact_up_to)
        ids = left[rest.first], free[rest.second]
        found = Pairs(*(torch.cat(parts) for parts in zip(found, (*ids, rest.strength), strict=True)))
    return _ordered(found)


def shared_pairs(
    matching: Pairs, W_enc_LD: Float[Tensor, "L D"], other_enc_MD: Float[Tensor, "M _"], over: float = SHARED_OVER
) -> Tensor:
    """Which pairs of a matching of decoder rows are alike in both decoder and encoder."""
    check_widths(W_enc_LD, other_enc_MD)
    read = paired(W_enc_LD.detach()[matching.first], other_enc_MD.detach()[matching.second])
    return (matching.strength > over) & (read.cpu() > over)


def match_edges(edges: Pairs, n_first: int, n_second: int) -> Pairs:
    """The one-to-one matching of given pairs with the largest sum of absolute strengths; some may have nobody.

    No pair may be given twice.
    """
    from scipy.sparse import coo_array, csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    rows, columns = edges.first.numpy(), edges.second.numpy()
    nobody = np.arange(n_first)
    weights = np.concatenate([edges.strength.abs().double().clamp(min=2 * _LEAST).numpy(), np.full(n_first, _LEAST)])
    at = np.concatenate([rows, nobody]), np.concatenate([columns, n_second + nobody])
    graph = csr_array(coo_array((weights, at), shape=(n_first, n_second + n_first)))
    chosen = np.stack(min_weight_full_bipartite_matching(graph, maximize=True)).astype(np.int64)
    chosen = chosen[:, chosen[1] < n_second]
    keys = rows * n_second + columns
    order = keys.argsort()
    places = torch.from_numpy(order[np.searchsorted(keys[order], chosen[0] * n_second + chosen[1])])
    return Pairs(edges.first[places], edges.second[places], edges.strength[places])


@torch.no_grad()
def rotation_null(
    W_LD: Float[Tensor, "L D"],
    other_MD: Float[Tensor, "M _"],
    score: Callable[[Tensor, Tensor], float],
    observed: float,
    *,
    draws: int,
    seed: int = 0,
) -> Null:
    """A score of two decoders, and the same with the second turned by rotations drawn uniformly."""
    if draws < 1:
        raise UserError(f"a null needs at least 1 draw, got {draws}")
    check_widths(W_LD, other_MD)
    generator = torch.Generator().manual_seed(seed)
    rotations = (random_rotation(W_LD.shape[1], generator).to(other_MD) for _ in range(draws))
    return Null(observed, [score(W_LD, other_MD @ rotation) for rotation in rotations])


def random_rotation(width: int, generator: torch.Generator) -> Float[Tensor, "D D"]:
    """An orthogonal matrix drawn uniformly: QR of normal entries with the signs of R's diagonal (Mezzadri 2007)."""
    Q, R = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))
    return Q * R.diagonal().sign()


def encoder_rows(coder: SparseCoder) -> Float[Tensor, "L D"] | None:
    """What each latent reads, or None for an architecture whose latents have no row of their own to read with."""
    W_enc = getattr(coder, "W_enc", None)
    return W_enc.detach() if isinstance(W_enc, Tensor) and len(W_enc) == coder.n_latents else None


def _shared(matching: Pairs, first: SparseCoder, second: SparseCoder) -> Tensor | None:
    read, other = encoder_rows(first), encoder_rows(second)
    if read is None or other is None or read.shape[1] != other.shape[1]:
        return None
    return shared_pairs(matching, read, other)


def _match_exactly(W_LD: Float[Tensor, "L D"], other_MD: Float[Tensor, "M _"]) -> Pairs:
    from scipy.optimize import linear_sum_assignment

    cosines = all_cosines(W_LD, other_MD).cpu()
    rows, columns = (torch.from_numpy(ids) for ids in linear_sum_assignment(cosines.abs().numpy(), maximize=True))
    return Pairs(rows, columns, cosines[rows, columns])


def _match_neighbours(W_LD: Float[Tensor, "L D"], other_MD: Float[Tensor, "M _"]) -> Pairs:
    """The best matching among the nearest of either side."""
    n_rows, n_columns = len(W_LD), len(other_MD)
    near = nearest(W_LD, other_MD, n=min(_NEIGHBOURS, n_columns), signed=False)
    back = nearest(other_MD, W_LD, n=min(_NEIGHBOURS, n_rows), signed=False)
    rows = torch.cat([_repeated(near.ids), back.ids.flatten().cpu()])
    columns = torch.cat([near.ids.flatten().cpu(), _repeated(back.ids)])
    cosines = torch.cat([near.cosines.flatten().cpu(), back.cosines.flatten().cpu()])
    _, first = np.unique((rows * n_columns + columns).numpy(), return_index=True)
    return match_edges(Pairs(rows[first], columns[first], cosines[first]), n_rows, n_columns)


def _repeated(ids_LN: Int[Tensor, "L N"]) -> Int[Tensor, " P"]:
    return torch.arange(len(ids_LN)).repeat_interleave(ids_LN.shape[1])


def _others(ids: Int[Tensor, " P"], n: int) -> Int[Tensor, " Q"]:
    is_left = torch.ones(n, dtype=torch.bool)
    is_left[ids] = False
    return is_left.nonzero().flatten()


def _turned(pairs: Pairs) -> Pairs:
    return Pairs(pairs.second, pairs.first, pairs.strength)


def _ordered(pairs: Pairs) -> Pairs:
    order = pairs.first.argsort()
    return Pairs(*(part[order] for part in pairs))
