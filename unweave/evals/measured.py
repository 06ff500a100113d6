"""Figures of a suite, and their standard errors by leaving out one block of documents at a time.

A figure is computed for R = 65 weightings of the test examples: all of them, and all but those of one of 64 blocks of
documents. The blocks are those of ``metrics.base``, by the number of the document, which is the same in all tasks; so
an error holds for means over tasks too. Probes stay as they are: the error is that of the measured documents.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from unweave.metrics.base import N_BLOCKS


class Measured(NamedTuple):
    """What a suite says of one coder."""

    figures: dict[str, float]
    standard_errors: dict[str, float]
    """Empty with documents in fewer than two blocks."""
    n: int
    """Examples that were measured on, over all tasks."""
    details: dict[str, float]
    """Parts of the figures, such as those of single tasks, by a name of their own."""


class Weightings(NamedTuple):
    """Ways to weigh examples, all of them and all but one block, and which blocks hold any."""

    used: Bool[np.ndarray, " 64"]

    @staticmethod
    def of(documents: Iterable[Int[np.ndarray, " _"]]) -> "Weightings":
        """Of all examples that are measured on, by the numbers of their documents."""
        used = np.zeros(N_BLOCKS, dtype=bool)
        for numbers in documents:
            used[numbers % N_BLOCKS] = True
        return Weightings(used)

    def weights(self, documents_N: Int[np.ndarray, " N"]) -> Float[np.ndarray, "R N"]:
        """The weight of each example: 1, or 0 in the way that leaves its block out."""
        blocks = np.flatnonzero(self.used)
        left_out = (documents_N % N_BLOCKS)[None] == blocks[:, None]
        return np.concatenate([np.ones((1, len(documents_N))), 1.0 - left_out])

    def measured(
        self, figures: Mapping[str, Float[np.ndarray, " R"]], n: int, details: Mapping[str, float] | None = None
    ) -> Measured:
        """The figures of all examples, and their errors."""
        values = {name: float(value[0]) for name, value in figures.items()}
        errors = {}
        n_blocks = int(self.used.sum())
        if n_blocks > 1:
            errors = {name: float(np.sqrt((n_blocks - 1) * value[1:].var())) for name, value in figures.items()}
        return Measured(values, errors, n, dict(details or {}))


def mean_of_known(values: Sequence[Float[np.ndarray, " R"]]) -> Float[np.ndarray, " R"]:
    """Mean of several figures, of those that have a meaning; NaN where none has."""
    values_NR = np.stack(values)
    known_NR = ~np.isnan(values_NR)
    with np.errstate(invalid="ignore"):
        return np.where(known_NR, values_NR, 0).sum(0) / known_NR.sum(0)


def weighted_mean(values_N: np.ndarray, weights_RN: Float[np.ndarray, "R N"]) -> Float[np.ndarray, " R"]:
    """NaN where nothing has weight."""
    total = weights_RN.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return weights_RN @ values_N.astype(np.float64) / total
