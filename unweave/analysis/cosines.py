"""Cosines between two sets of directions, a block at a time, so that no matrix of all pairs is ever held.

A direction of length 0 has cosine 0 with every other. Of random unit vectors in D dimensions the squared cosine is
distributed as Beta(1/2, (D - 1)/2), and the largest of M independent ones lies under t with that probability to the
power of M, so its mean is the integral over t from 0 to 1 of 1 - I(t^2; 1/2, (D - 1)/2)^M. For many directions it is
near sqrt(2 log(M) / D).
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from unweave.errors import UserError

CELLS = 2**24
"""Cosines that are held at once where not all are needed."""


class Neighbours(NamedTuple):
    """The nearest directions of a second set to each of a first, nearest first."""

    cosines: Float[Tensor, "L N"]
    """As they are, with their sign."""
    ids: Int[Tensor, "L N"]


class Pairs(NamedTuple):
    """Some pairs of a first and a second set, ordered by the first, then by the second."""

    first: Int[Tensor, " P"]
    second: Int[Tensor, " P"]
    strength: Float[Tensor, " P"]


def unit_rows(W_LD: Float[Tensor, "L D"]) -> Float[Tensor, "L D"]:
    """Rows of length 1, in single precision at least; rows of length 0 stay."""
    W_LD = W_LD.detach()
    return F.normalize(W_LD if W_LD.dtype == torch.float64 else W_LD.float(), dim=1)


@torch.no_grad()
def nearest(
    W_LD: Float[Tensor, "L D"],
    other_MD: Float[Tensor, "M _"] | None = None,
    *,
    n: int = 1,
    signed: bool = True,
) -> Neighbours:
    """The ``n`` directions with the largest cosine, or the largest absolute one if not ``signed``.

    Without a second set each direction is compared with the others of its own set, of which there must be ``n``.
    """
    alone = other_MD is None
    found: list[tuple[Tensor, Tensor]] = []
    for start, cosines in _blocks(W_LD, W_LD if other_MD is None else other_MD):
        ranked = cosines if signed else cosines.abs()
        if alone:
            rows = torch.arange(len(cosines), device=cosines.device)
            ranked[rows, start + rows] = -torch.inf
        ids = ranked.argmax(1, keepdim=True) if n == 1 else ranked.topk(n, dim=1).indices
        found.append((cosines.gather(1, ids), ids))
    return Neighbours(torch.cat([cosines for cosines, _ in found]), torch.cat([ids for _, ids in found]))


@torch.no_grad()
def pairs_over(
    W_LD: Float[Tensor, "L D"],
    other_MD: Float[Tensor, "M _"],
    threshold: float,
) -> Pairs:
    """All pairs whose cosine is over a threshold."""
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for start, cosines in _blocks(W_LD, other_MD):
        rows, ids = (cosines > threshold).nonzero(as_tuple=True)
        found.append((rows + start, ids, cosines[rows, ids]))
    first, second, strength = (torch.cat(part) for part in zip(*found, strict=True))
    return Pairs(first, second, strength)


def paired(W_LD: Float[Tensor, "P D"], other_LD: Float[Tensor, "P D"]) -> Float[Tensor, " P"]:
    """The cosine of each row with the row at the same place."""
    return (unit_rows(W_LD) * unit_rows(other_LD)).sum(1)


def all_cosines(W_LD: Float[Tensor, "L D"], other_MD: Float[Tensor, "M _"]) -> Float[Tensor, "L M"]:
    """All cosines at once, for small sets."""
    check_widths(W_LD, other_MD)
    units_LD = unit_rows(W_LD)
    return units_LD @ unit_rows(other_MD).to(units_LD).T


def random_nearest(n_others: int, width: int, *, signed: bool = False) -> float:
    """The mean of the largest absolute cosine of a direction with so many random ones; of cosines if ``signed``."""
    from scipy.integrate import quad
    from scipy.special import betainc

    if width == 1:
        return 1.0 - 2.0 * 0.5**n_others if signed else 1.0

    def under(t: float) -> float:
        within = float(betainc(0.5, (width - 1) / 2, t * t))
        return 0.5 * (1.0 + math.copysign(within, t)) if signed else within

    low = -1.0 if signed else 0.0
    parts = [quad(lambda t: under(t) ** n_others, *ends, limit=200)[0] for ends in ((low, 0.0), (0.0, 1.0))]
    return 1.0 - float(sum(parts))


def check_widths(W_LD: Float[Tensor, "L D"], other_MD: Float[Tensor, "M _"]) -> None:
    """Raise ``UserError`` for sets of directions that are empty or of different widths."""
    if not len(W_LD) or not len(other_MD):
        raise UserError(
            f"both sets of directions need at least one row, got {list(W_LD.shape)} and {list(other_MD.shape)}"
        )
    if W_LD.shape[1] != other_MD.shape[1]:
        raise UserError(
            f"directions of width {W_LD.shape[1]} and {other_MD.shape[1]} have no cosine; compare coders of sites of "
            "other widths by the correlation of their codes"
        )


def _blocks(W_LD: Float[Tensor, "L D"], other_MD: Float[Tensor, "M _"]) -> Iterator[tuple[int, Tensor]]:
    """Rows of all cosines, with the number of the first."""
    check_widths(W_LD, other_MD)
    units_LD = unit_rows(W_LD)
    units_MD = unit_rows(other_MD).to(units_LD)
    start = 0
    for block in units_LD.split(max(1, CELLS // len(units_MD))):
        yield start, block @ units_MD.T
        start += len(block)
