"""When latents fire: the places of a text at which each of some latents is active, and how strongly.

A place is a token of packed sequences of equal length T: token t of sequence s is place ``s T + t``.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int, UInt

from unweave.analysis.fire_scans import falling_order

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)
"""Shares of a latent's fires for which the activation is kept; closer to each other near the strongest."""
N_BINS = 40
"""Bars of a histogram of activations."""


@dataclass(frozen=True)
class IndexedText:
    """The sequences that an index was made of; the arrays may be mapped from disk."""

    token_ids: UInt[np.ndarray, "S T"] | Int[np.ndarray, "S T"]
    document_ids: Int[np.ndarray, "S T"]
    is_row: Bool[np.ndarray, "S T"]
    """Whether the coder read this token; special tokens and padding it does not."""

    @property
    def context(self) -> int:
        """Tokens of a sequence."""
        return self.token_ids.shape[1]

    @cached_property
    def n_rows(self) -> int:
        return int(self.is_row.sum())


@dataclass(frozen=True)
class Fires:
    """The fires of latents ``first``, ``first + 1``, ... latent by latent, each in the order of the text."""

    first: int
    offsets: Int[np.ndarray, " C_plus_1"]
    """Latent ``first + i`` owns the fires ``offsets[i]`` to ``offsets[i + 1]``."""
    places: Int[np.ndarray, " E"]
    values: Float[np.ndarray, " E"]

    def __len__(self) -> int:
        """Latents."""
        return len(self.offsets) - 1

    @property
    def counts(self) -> Int[np.ndarray, " C"]:
        """Fires of each latent."""
        return np.diff(self.offsets)

    @cached_property
    def falling(self) -> Int[np.ndarray, " E"]:
        """Where the fires of each latent are in ``places`` and ``values``, strongest first, equal ones as they come."""
        return falling_order(self.values, self.offsets)


@dataclass(frozen=True)
class Activity:
    """How strongly latents fire; a row for each latent, zeros where it never does."""

    mean: Float[np.ndarray, " C"]
    quantiles: Float[np.ndarray, "C Q"]
    """Activations at ``QUANTILES`` of the fires: the smallest value that so large a share does not exceed."""
    histogram: Int[np.ndarray, "C N"]
    """Fires in bins of equal width from the smallest activation, or 0 if that is less, to the largest, or 0."""

    @property
    def low(self) -> Float[np.ndarray, " C"]:
        """Where the first bin begins."""
        return np.minimum(self.quantiles[:, 0], 0.0)

    @property
    def high(self) -> Float[np.ndarray, " C"]:
        """Where the last bin ends."""
        return np.maximum(self.quantiles[:, -1], 0.0)


def activity(fires: Fires) -> Activity:
    """Mean, quantiles and histogram of each latent's activations where it fires."""
    counts = fires.counts
    owners = np.repeat(np.arange(len(fires)), counts)
    values = fires.values.astype(np.float64)
    mean = np.bincount(owners, values, minlength=len(fires)) / np.maximum(counts, 1)
    ranks = np.ceil(np.array(QUANTILES) * counts[:, None]).astype(np.int64)
    at = fires.offsets[1:, None] - np.clip(ranks, 1, np.maximum(counts, 1)[:, None])  # a latent's weakest fire is last
    quantiles = fires.values[fires.falling[np.maximum(at, 0)]] if len(values) else np.zeros(at.shape)
    quantiles = np.where(counts[:, None] > 0, quantiles, 0.0)
    low, high = np.minimum(quantiles[:, 0], 0.0), np.maximum(quantiles[:, -1], 0.0)
    width = np.maximum(high - low, np.finfo(np.float64).tiny)
    bins = np.minimum(((values - low[owners]) / width[owners] * N_BINS).astype(np.int64), N_BINS - 1)
    histogram = np.bincount(owners * N_BINS + bins, minlength=len(fires) * N_BINS).reshape(len(fires), N_BINS)
    return Activity(mean, quantiles, histogram)
