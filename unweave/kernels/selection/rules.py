"""Which entries of a matrix of pre-activations are active, as data."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TopKOfRow:
    """The k largest positive entries of each row (TopK, Gao et al. 2024, arXiv 2406.04093)."""

    k: int
    signed: bool = False
    """Rank by magnitude and keep negative entries too (AbsTopK, arXiv 2510.00404)."""


@dataclass(frozen=True)
class TopKOfBatch:
    """The int(B*k) largest positive entries of the whole batch (BatchTopK, Bussmann et al. 2024, arXiv 2412.06410)."""

    k: int | float
    """Mean number of entries per row."""


@dataclass(frozen=True)
class Above:
    """Entries strictly above a threshold: one number, or one for each latent."""

    threshold: Tensor | float


@dataclass(frozen=True)
class GroupMax:
    """The first largest entry of each of ``n_groups`` equal runs of latents, where it is positive."""

    n_groups: int


Rule = TopKOfRow | TopKOfBatch | Above | GroupMax
