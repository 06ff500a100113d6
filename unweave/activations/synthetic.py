"""Rows with a known ground truth: sparse sums of feature directions, with noise and a bias.

x = sum_i m_i f_i + noise + bias. The f_i are unit directions, more of them than dimensions if wanted (superposition).
Feature i fires, m_i > 0, with a probability that falls with its rank i from 1 on by Zipf's law, stretched to
[min, max]: p_i = min + (max - min) (i^-a - n^-a) / (1 - n^-a), as in SAELens' synthetic data. Magnitudes of features
that fire are log-normal, which is positive, with the stated mean and spread. Which features fire together is said by
``copula.py``, which only where others fire by ``hierarchy.py``. Features that have a parent are drawn independently of
each other where it fires; the copula reaches them through the roots of their trees.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unweave.activations.copula import fire, random_loadings
from unweave.activations.directions import spread_out, unit_directions
from unweave.activations.hierarchy import Forest, fire_below, given_parent
from unweave.errors import UserError
from unweave.types import Codes, SyntheticRows

_STREAM = 1_000_003
"""Added to the config's seed."""


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Which features there are, and when they fire."""

    n_features: int = 256
    """Number of features; more than ``d_model`` for superposition."""
    d_model: int = 64
    """Width of the rows."""
    orthogonal_turns: int = 10
    """Turns of spreading the directions so that they overlap little; 0 leaves them random."""
    zipf_exponent: float = 1.0
    """How fast firing probabilities fall with a feature's rank."""
    max_probability: float = 0.3
    """Firing probability of the most frequent feature, which is the first."""
    min_probability: float = 0.01
    """Firing probability of the rarest feature, which is the last."""
    magnitude_mean: float = 1.0
    """Mean magnitude of a feature that fires."""
    magnitude_spread: float = 0.25
    """Standard deviation of the magnitudes of a feature that fires."""
    correlation_rank: int = 0
    """Number of hidden causes that make features fire together or apart; 0 for independent features."""
    correlation_scale: float = 0.0
    """Standard deviation of a feature's loading on each cause; features share about rank times scale squared."""
    roots: int = 0
    """Number of trees in which a feature fires only where its parent does; 0 for none."""
    branching: int = 0
    """Children of every node of a tree that is not a leaf."""
    depth: int = 0
    """Levels of a tree below its root."""
    exclusive_siblings: bool = False
    """Whether at most one child of a node fires on a row."""
    noise: float = 0.0
    """Standard deviation of the Gaussian noise in every dimension."""
    bias: float = 0.0
    """Length of a constant vector that is added to all rows."""
    seed: int = 0
    """Fixes directions, loadings and bias; the rows themselves come from the generator of each call."""

    def __post_init__(self) -> None:
        for name in ("n_features", "d_model", "zipf_exponent", "magnitude_mean"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UserError(f"synthetic.{name} must be finite and more than 0, got {getattr(self, name)}")
        for name in ("orthogonal_turns", "magnitude_spread", "noise", "bias", "seed"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"synthetic.{name} must be finite and not negative, got {getattr(self, name)}")
        if not 0 < self.min_probability <= self.max_probability <= 1:
            raise UserError(
                "synthetic needs 0 < min_probability <= max_probability <= 1, "
                f"got {self.min_probability} and {self.max_probability}"
            )
        self._check_correlation()
        self._check_hierarchy()

    def _check_correlation(self) -> None:
        rank, scale = self.correlation_rank, self.correlation_scale
        if not (rank == scale == 0 or (rank > 0 and 0 < scale < float("inf"))):
            raise UserError(
                "synthetic.correlation_rank and correlation_scale are both 0 or both more than 0, "
                f"got {rank} and {scale}"
            )

    def _check_hierarchy(self) -> None:
        shape = (self.roots, self.branching, self.depth)
        if not (all(size == 0 for size in shape) or all(size > 0 for size in shape)):
            raise UserError(
                "synthetic.roots, branching and depth are all 0 or all more than 0, got " + ", ".join(map(str, shape))
            )
        if self.exclusive_siblings and self.branching < 2:
            raise UserError(
                f"synthetic.exclusive_siblings needs a branching of at least 2, got branching={self.branching}"
            )
        if self.forest.n_nodes > self.n_features:
            raise UserError(
                f"{self.roots} trees with branching {self.branching} and depth {self.depth} have "
                f"{self.forest.n_nodes} nodes, more than synthetic.n_features={self.n_features}; raise it, or use fewer"
            )

    @property
    def forest(self) -> Forest:
        return Forest(self.roots, self.branching, self.depth, self.exclusive_siblings)


@final
class SyntheticData:
    """A source of rows whose features are known; the same config has the same features on every device."""

    def __init__(self, config: SyntheticConfig, device: str | torch.device = "cpu") -> None:
        # a stream of its own: a coder drawn from the same seed would otherwise start at the features themselves
        generator = torch.Generator().manual_seed(_STREAM + config.seed)
        forest, n_features = config.forest, config.n_features
        features_FD = spread_out(unit_directions(n_features, config.d_model, generator), config.orthogonal_turns)
        loadings_FR = random_loadings(n_features, config.correlation_rank, config.correlation_scale, generator)
        bias_D = config.bias * unit_directions(1, config.d_model, generator)[0]
        wanted_F = zipf(n_features, config.zipf_exponent, config.max_probability, config.min_probability)
        given_F, probabilities_F = given_parent(wanted_F, forest)
        parents_F = forest.parents(n_features)
        self.config = config
        self.features_FD = features_FD.float().to(device)
        self.bias_D = bias_D.float().to(device)
        self.probabilities_F = probabilities_F.to(device)
        """How often each feature fires, float64: by Zipf's law, save where the forest does not allow it."""
        self.parents_F = parents_F.to(device)
        """The parent of each feature, -1 where there is none."""
        self.loadings_FR = (loadings_FR * (parents_F == -1)[:, None]).to(device)
        """The copula's loadings, float64; 0 for features that have a parent."""
        self._given_F = given_F.float().to(device)
        self._free = (parents_F == -1).nonzero().flatten().to(device)

    def sample(self, n: int, generator: torch.Generator) -> SyntheticRows:
        """Draw ``n`` rows; ``generator`` is on the device of the data."""
        if n < 1:
            raise UserError(f"a sample has at least 1 row, got {n}")
        magnitudes_BF = self._draw_magnitudes(n, generator)
        x_BD = F.embedding_bag(
            magnitudes_BF.latent_ids,
            self.features_FD,
            magnitudes_BF.row_offsets,
            mode="sum",
            per_sample_weights=magnitudes_BF.values,
            include_last_offset=True,
        )
        if self.config.noise > 0:
            x_BD += self.config.noise * torch.randn(x_BD.shape, generator=generator, device=x_BD.device)
        return SyntheticRows(x_BD + self.bias_D, magnitudes_BF)

    def batches(self, batch: int, generator: torch.Generator) -> Iterator[dict[str, Float[Tensor, "B D"]]]:
        """Batches of rows without end at the site ``synthetic``, as the training loop reads them."""
        while True:
            yield {"synthetic": self.sample(batch, generator).x_BD}

    def _draw_magnitudes(self, n: int, generator: torch.Generator) -> Codes:
        free, n_features = self._free, self.config.n_features
        rows, positions = fire(n, self.probabilities_F[free], self.loadings_FR[free], generator)
        rows, features = fire_below(rows, free[positions], self._given_F, self.config.forest, generator)
        places = (rows * n_features + features).sort().values
        offsets = torch.searchsorted(places, n_features * torch.arange(n + 1, device=places.device))
        values = log_normal(len(places), self.config.magnitude_mean, self.config.magnitude_spread, generator)
        return Codes(values, places % n_features, offsets, n_features)


def zipf(n: int, exponent: float, largest: float, smallest: float) -> Float[Tensor, " F"]:
    """Firing probabilities by rank, float64, from the largest to the smallest."""
    shares_F = torch.arange(1, n + 1, dtype=torch.float64) ** -exponent
    if n == 1:
        return torch.full((1,), largest, dtype=torch.float64)
    return smallest + (largest - smallest) * (shares_F - shares_F[-1]) / (1 - shares_F[-1])


def log_normal(n: int, mean: float, spread: float, generator: torch.Generator) -> Float[Tensor, " E"]:
    """Positive numbers with this mean and standard deviation."""
    variance = math.log1p((spread / mean) ** 2)
    normal = torch.randn(n, generator=generator, device=generator.device)
    return (math.log(mean) - variance / 2 + variance**0.5 * normal).exp()
