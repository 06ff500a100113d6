"""Standard errors of any metric by leaving out one block of consecutive text at a time (Quenouille 1949, Tukey 1958).

Tokens of one document are alike, so errors that treat tokens as independent are far too small; blocks of whole batches
of running text keep documents together.
"""

import math
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from unweave.metrics.base import Metric

Batch = TypeVar("Batch")
_MOST_BLOCKS = 32


class Jackknife(Generic[Batch]):
    """A metric kept once per block of batches; blocks are joined in pairs when there are more than 32."""

    def __init__(self, new_metric: Callable[[], Metric[Batch]]) -> None:
        """``new_metric`` makes an empty metric."""
        self._new_metric = new_metric
        self._blocks: list[Metric[Batch]] = []
        self._batches_per_block = 1
        self._batches_in_last = 0

    def update(self, batch: Batch) -> None:
        """Add a batch of running text."""
        if not self._blocks or self._batches_in_last == self._batches_per_block:
            if len(self._blocks) == _MOST_BLOCKS:
                self._join_pairs()
            self._blocks.append(self._new_metric())
            self._batches_in_last = 0
        self._blocks[-1].update(batch)
        self._batches_in_last += 1

    def total(self) -> Metric[Batch]:
        """The metric over everything."""
        return self._merged(range(len(self._blocks)))

    def standard_errors(self) -> dict[str, float]:
        """The standard error of each figure; empty with fewer than two blocks."""
        n = len(self._blocks)
        if n < 2:
            return {}
        left_out = [self._merged(j for j in range(n) if j != i).compute() for i in range(n)]
        return {name: _standard_error([figures[name] for figures in left_out]) for name in left_out[0]}

    def _merged(self, indices: Iterable[int]) -> Metric[Batch]:
        merged = self._new_metric()
        for i in indices:
            merged.merge(self._blocks[i])
        return merged

    def _join_pairs(self) -> None:
        joined = []
        for left, right in zip(self._blocks[::2], self._blocks[1::2], strict=True):
            left.merge(right)
            joined.append(left)
        self._blocks = joined
        self._batches_per_block *= 2


def _standard_error(values: list[float]) -> float:
    n = len(values)
    mean = sum(values) / n
    return math.sqrt((n - 1) / n * sum((value - mean) ** 2 for value in values))
