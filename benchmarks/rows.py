"""Rows with a known truth: sparse sums of random unit features."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class SparseSums(NamedTuple):
    """Rows, what they were made of, and how: ``rows_ND = activations_NF @ features_FD``."""

    rows_ND: Tensor
    activations_NF: Tensor


def random_features(n_features: int, d_model: int) -> Tensor:
    """Directions on the unit sphere."""
    return F.normalize(torch.randn(n_features, d_model), dim=1)


def sparse_sums(n_rows: int, features_FD: Tensor, probability: float, largest: float = 5.0) -> SparseSums:
    """Each feature is active on its own with the given probability, at a magnitude drawn evenly up to ``largest``."""
    size = (n_rows, features_FD.shape[0])
    activations_NF = (torch.rand(size) < probability) * torch.rand(size) * largest
    return SparseSums(activations_NF @ features_FD, activations_NF)
