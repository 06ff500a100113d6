"""Which differences between two coders are real: a paired bootstrap over blocks of documents (Efron 1979).

Both coders were measured on the same tokens, so the same blocks are drawn again for both, and what a hard document
costs either of them cancels. A difference is called real where 0 is outside the interval of 95 % of the draws.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.errors import UserError
from unweave.metrics import core_metric
from unweave.metrics.base import Sums

_DRAWS = 2000
_AT_ONCE = 50
_INTERVAL = (0.025, 0.975)


class Difference(NamedTuple):
    """One figure of two coders."""

    name: str
    first: float
    second: float
    low: float
    """Of the interval of the second less the first."""
    high: float

    @property
    def is_real(self) -> bool:
        return self.low > 0 or self.high < 0


def differences(first: Mapping[str, Sums], second: Mapping[str, Sums], seed: int = 0) -> list[Difference]:
    """Every figure that both coders have, given the sums of their metrics by name.

    Raises ``UserError`` where they were not measured on the same tokens.
    """
    used = _same_blocks(first, second)
    weights = _drawn(used, torch.Generator().manual_seed(seed))
    found = []
    for name in first:
        if name in second:
            found += _of_metric(name, first[name], second[name], weights)
    return found


def _of_metric(name: str, first: Sums, second: Sums, weights_RN: Float[Tensor, "R N"]) -> list[Difference]:
    one, other = core_metric(name, first), core_metric(name, second)
    drawn = [[metric.resampled(part) for part in weights_RN.split(_AT_ONCE)] for metric in (one, other)]
    totals = one.compute(), other.compute()
    found = []
    for figure in totals[0]:
        values = [torch.cat([part[figure] for part in parts]) for parts in drawn]
        low, high = (values[1] - values[0]).quantile(torch.tensor(_INTERVAL, dtype=torch.float64)).tolist()
        found.append(Difference(figure, totals[0][figure], totals[1][figure], low, high))
    return found


def _same_blocks(first: Mapping[str, Sums], second: Mapping[str, Sums]) -> Tensor:
    """Which blocks hold anything."""
    rows = [sums["reconstruction"]["rows"] for sums in (first, second)]
    if not torch.equal(*rows):
        raise UserError(
            f"the coders were not measured on the same tokens ({int(rows[0].sum()):,} and {int(rows[1].sum()):,}); "
            "`unweave evaluate` both with the same text and evaluation.tokens"
        )
    used = rows[0] > 0
    if int(used.sum()) < 2:
        raise UserError("the coders were measured on a single document, which tells no error; measure on more")
    return used


def _drawn(used_N: Tensor, generator: torch.Generator) -> Float[Tensor, "R N"]:
    """How often each block is drawn."""
    places = used_N.nonzero().flatten()
    draws = places[torch.randint(len(places), (_DRAWS, len(places)), generator=generator)]
    weights = torch.zeros(_DRAWS, len(used_N), dtype=torch.float64)
    return weights.scatter_add_(1, draws, torch.ones(draws.shape, dtype=torch.float64))
