"""Which latents fire together, within one coder or between two that were given the same tokens: sparse sums of pairs.

Of the pairs that ever fire together four sums are kept, with a and b their activations on one row:

    both     rows on which a and b are active          product   sum of a b
    first    sum of a^2 over rows on which b is active second    sum of b^2 over rows on which a is active

With n_a rows on which a is active, of N:

    jaccard      both / (n_a + n_b - both)
    pmi          log(both N / (n_a n_b)), how many times as often as by chance
    correlation  (product / N - mean a mean b) / (sd a sd b), Pearson's
    contained    both / n_b, how often a is active where b is
    masked       product / sqrt(first sum b^2), the cosine of a and b on the rows where b is active

Memory is that of the distinct pairs, about 60 bytes each and twice that while sums are added. With many latents, where
these are too many, make several passes and give only a range of the first coder's latents in each (``Codes.where``).
Updates are put together until they are worth a product.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.analysis.cosines import Pairs
from unweave.errors import UserError
from unweave.metrics.base import Definition
from unweave.types import Codes

_WORTH_A_PRODUCT = 2**20
"""Entries that are put together before their pairs are counted."""
_SIDES = {"both": ("on", "on"), "product": ("value", "value"), "first": ("square", "on"), "second": ("on", "square")}

DEFINITIONS = (
    Definition(
        "co_firing_connectivity",
        "Connectivity",
        "Share of all pairs of latents that are active on one token at least once. It grows with the number of tokens.",
        "compare on the same tokens only",
    ),
    Definition(
        "co_firing_jaccard",
        "Nearest in firing",
        "Largest Jaccard index of a latent's tokens with those of another, averaged over latents that fired.",
        "under 0.3; high where latents repeat each other",
    ),
    Definition(
        "redundant_latents",
        "Redundant latents",
        "Share of the latents that fired which share over half of their tokens, as a Jaccard index, with another one.",
        "under 5 %",
    ),
)


class FiredTogether(NamedTuple):
    """Pairs of latents that fire together, ordered by the first, and how alike they are."""

    first: Int[Tensor, " P"]
    second: Int[Tensor, " P"]
    both: Int[Tensor, " P"]
    jaccard: Float[Tensor, " P"]
    pmi: Float[Tensor, " P"]
    correlation: Float[Tensor, " P"]
    contained: Float[Tensor, " P"]
    masked: Float[Tensor, " P"]

    def pairs(self, by: str) -> Pairs:
        """The pairs with one of the figures as their strength."""
        return Pairs(self.first, self.second, getattr(self, by))

    def other_latents(self) -> "FiredTogether":
        """Without the pairs of a latent and itself; for one coder."""
        keep = self.first != self.second
        return FiredTogether(*(part[keep] for part in self))


class CoFiring:
    """Sums over the rows that two coders, or one coder twice, were given."""

    def __init__(self, n_first: int, n_second: int) -> None:
        self.n_first, self.n_second = n_first, n_second
        self.n_rows = 0
        self.powers = (torch.zeros(3, n_first, dtype=torch.float64), torch.zeros(3, n_second, dtype=torch.float64))
        """Of each coder the rows on which each latent is active, and the sums of its values and their squares."""
        self._sums: dict[str, Any] = {}
        self._waiting: list[tuple[Any, Any]] = []

    def update(self, first: Codes, second: Codes) -> None:
        """Add what both coders found in the same rows."""
        came, expected = (first.n_latents, second.n_latents), (self.n_first, self.n_second)
        if came != expected or first.n_rows != second.n_rows:
            raise UserError(
                f"codes do not fit: {came[0]} and {came[1]} latents of {first.n_rows} and {second.n_rows} rows, "
                f"expected {expected[0]} and {expected[1]} latents of the same rows"
            )
        self.n_rows += first.n_rows
        for powers, codes in zip(self.powers, (first, second), strict=True):
            _add_powers(powers, codes)
        self._waiting.append((sparse_rows(first), sparse_rows(second)))
        if sum(a.nnz + b.nnz for a, b in self._waiting) >= _WORTH_A_PRODUCT:
            self._count()

    def merge(self, other: "CoFiring") -> None:
        """Add what another has seen of the same coders."""
        self._count()
        other._count()
        self.n_rows += other.n_rows
        for powers, more in zip(self.powers, other.powers, strict=True):
            powers += more
        self._add(other._sums)

    def n_pairs_of_others(self) -> int:
        """Ordered pairs of two latents that were active together at least once; for one coder."""
        self._count()
        both = self._sums.get("both")
        return 0 if both is None else int(both.nnz - (both.diagonal() > 0).sum())

    def together(self, min_count: int = 1) -> FiredTogether:
        """Pairs that were active together on at least so many rows."""
        self._count()
        if not self._sums:
            raise UserError("nothing has fired together yet; update with codes first")
        both = self._sums["both"]
        keep = both.data >= min_count
        rows, columns = _row_ids(both)[keep], both.indices[keep].astype(np.int64)
        keys = rows * self.n_second + columns
        sums = {name: torch.from_numpy(_at(matrix, keys)) for name, matrix in self._sums.items()}
        first, second = torch.from_numpy(rows), torch.from_numpy(columns)
        (n_a, sum_a, square_a), (n_b, sum_b, square_b) = self.powers[0][:, first], self.powers[1][:, second]
        n, count = self.n_rows, sums["both"]
        spread = ((square_a - sum_a.square() / n) * (square_b - sum_b.square() / n)).clamp(min=0).sqrt()
        return FiredTogether(
            first,
            second,
            count.long(),
            jaccard=count / (n_a + n_b - count),
            pmi=(count * n / (n_a * n_b)).log(),
            correlation=torch.where(spread > 0, (sums["product"] - sum_a * sum_b / n) / spread, 0.0),
            contained=count / n_b,
            masked=sums["product"] / (sums["first"] * square_b).sqrt(),
        )

    def _count(self) -> None:
        """Turn what waits into sums of pairs."""
        from scipy.sparse import vstack

        if not self._waiting:
            return
        first, second = (vstack(side, format="csr") for side in zip(*self._waiting, strict=True))
        self._waiting = []
        sides = [{"on": _powered(m, 0), "value": m, "square": _powered(m, 2)} for m in (first, second)]
        self._add({name: (sides[0][a].T @ sides[1][b]).tocsr() for name, (a, b) in _SIDES.items()})

    def _add(self, sums: dict[str, Any]) -> None:
        for name, matrix in sums.items():
            total = (self._sums[name] + matrix if name in self._sums else matrix.copy()).tocsr()
            total.sum_duplicates()
            self._sums[name] = total


def sparse_rows(codes: Codes) -> Any:
    """Codes as a SciPy matrix of float64 in compressed sparse rows, without explicit zeros."""
    from scipy.sparse import csr_array

    parts = codes.values.detach().cpu().double(), codes.latent_ids.cpu(), codes.row_offsets.cpu()
    matrix = csr_array(tuple(part.numpy() for part in parts), shape=(codes.n_rows, codes.n_latents), copy=True)
    matrix.eliminate_zeros()
    return matrix


def shuffled_rows(codes: Codes, generator: torch.Generator) -> Codes:
    """The same rows in another order: paired with another coder's codes of the rows as they were, a null."""
    order = torch.randperm(codes.n_rows, generator=generator).to(codes.row_offsets.device)
    lengths = codes.row_offsets.diff()[order]
    offsets = torch.cat([codes.row_offsets[:1], lengths.cumsum(0)])
    within = torch.arange(int(offsets[-1]), device=offsets.device) - offsets[:-1].repeat_interleave(lengths)
    entries = codes.row_offsets[:-1][order].repeat_interleave(lengths) + within
    return Codes(codes.values[entries], codes.latent_ids[entries], offsets, codes.n_latents)


def graph(together: FiredTogether, by: str = "jaccard", keep: int = 20) -> Pairs:
    """Each latent's strongest others by one of the figures, strongest first, latents in order."""
    if by not in FiredTogether._fields[3:]:
        raise UserError(f"a graph is made by one of {', '.join(FiredTogether._fields[3:])}, got {by!r}")
    pairs = together.other_latents().pairs(by)
    order = pairs.strength.argsort(descending=True, stable=True)
    order = order[pairs.first[order].argsort(stable=True)]
    first = pairs.first[order]
    place = torch.arange(len(first)) - torch.searchsorted(first, first)
    order = order[place < keep]
    return Pairs(*(part[order] for part in pairs))


def cofiring_figures(fired: CoFiring, min_count: int = 5) -> dict[str, float]:
    """Figures of one coder; ``min_count`` rows together are needed for a Jaccard index that says something."""
    if fired.n_first != fired.n_second:
        raise UserError(f"these figures are of one coder, got two with {fired.n_first} and {fired.n_second} latents")
    others = fired.together(min_count).other_latents()
    best = torch.zeros(fired.n_first, dtype=torch.float64)
    best.scatter_reduce_(0, others.first, others.jaccard, "amax")
    best = best[fired.powers[0][0] > 0]
    n_pairs = fired.n_first * (fired.n_first - 1)
    return {
        "co_firing_connectivity": fired.n_pairs_of_others() / max(1, n_pairs),
        "co_firing_jaccard": best.mean().item(),
        "redundant_latents": (best > 0.5).double().mean().item(),
    }


def _add_powers(powers: Float[Tensor, "3 L"], codes: Codes) -> None:
    values, ids = codes.values.detach().cpu().double(), codes.latent_ids.cpu()
    for power, of in zip(powers, ((values != 0).double(), values, values.square()), strict=True):
        power.index_add_(0, ids, of)


def _powered(matrix: Any, power: int) -> Any:
    raised = matrix.copy()
    raised.data **= power
    return raised


def _row_ids(matrix: Any) -> np.ndarray:
    return np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))


def _at(matrix: Any, keys: np.ndarray) -> np.ndarray:
    """Entries of a matrix with sorted indices at flat places; 0 where there is none."""
    own = _row_ids(matrix) * matrix.shape[1] + matrix.indices
    places = np.searchsorted(own, keys).clip(max=len(own) - 1)
    return np.where(own[places] == keys, matrix.data[places], 0.0)
