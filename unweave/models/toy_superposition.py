"""The toy model of superposition: more sparse features than dimensions, and how a trained model packs them.

Elhage et al. 2022, "Toy Models of Superposition" (2209.10652), the ReLU output model: h = W x and
x_hat = relu(W^T h + b), trained on sum_i I_i (x_i - x_hat_i)^2 with importances I_i = decay^i. A feature is 0 with
probability ``sparsity`` and else uniform in [0, 1]. Dense features leave room for the most important d_model only;
sparse ones share dimensions, five of them in two as a pentagon. Column i of W is the direction of feature i in h, so
the hidden rows h have a known ground truth that no one has put there by hand.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unweave.errors import UserError
from unweave.types import Codes, SyntheticRows

_JUDGING_ROWS = 20_000
"""Rows on which the restarts are compared."""


@dataclass(frozen=True, kw_only=True)
class ToySuperpositionConfig:
    """The features, and how the model is trained."""

    n_features: int = 5
    """Number of features."""
    d_model: int = 2
    """Width of the hidden rows; less than ``n_features`` for superposition."""
    sparsity: float = 0.9
    """Probability that a feature is 0."""
    importance_decay: float = 0.9
    """Each feature counts this much less in the loss than the one before it; 1 for equal features."""
    steps: int = 1500
    """Training steps."""
    batch: int = 1024
    """Rows per step."""
    lr: float = 0.01
    """Learning rate of Adam, falling to 0 over the second half of the training."""
    restarts: int = 8
    """Models trained side by side, of which the best is kept: many starts end in poor packings."""
    seed: int = 0
    """Fixes the starts and the training rows."""

    def __post_init__(self) -> None:
        for name in ("n_features", "d_model", "steps", "batch", "lr", "restarts"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UserError(f"toy.{name} must be finite and more than 0, got {getattr(self, name)}")
        if not 0 <= self.sparsity < 1:
            raise UserError(f"toy.sparsity is a probability in [0, 1), got {self.sparsity}")
        if not 0 < self.importance_decay <= 1:
            raise UserError(f"toy.importance_decay must be in (0, 1], got {self.importance_decay}")
        if self.seed < 0:
            raise UserError(f"toy.seed must not be negative, got {self.seed}")

    @property
    def importances(self) -> Float[Tensor, " F"]:
        """Weight of each feature in the loss."""
        return self.importance_decay ** torch.arange(self.n_features)


@final
@dataclass(frozen=True)
class ToySuperposition:
    """A trained toy model, and a source of its hidden rows."""

    config: ToySuperpositionConfig
    W_DF: Float[Tensor, "D F"]
    b_F: Float[Tensor, " F"]
    loss: float
    """Importance-weighted squared error on fresh rows, summed over features and averaged over rows."""

    @property
    def features_FD(self) -> Float[Tensor, "F D"]:
        """The direction of each feature in the hidden rows, not of unit length; near 0 for one that the model drops."""
        return self.W_DF.T

    def hidden(self, x_BF: Float[Tensor, "B F"]) -> Float[Tensor, "B D"]:
        """What the model holds of each row of features."""
        return x_BF @ self.W_DF.T

    def reconstruct(self, x_BF: Float[Tensor, "B F"]) -> Float[Tensor, "B F"]:
        """What the model reads back from its hidden rows."""
        return _reconstruct(x_BF, self.W_DF, self.b_F)

    def sample(self, n: int, generator: torch.Generator) -> SyntheticRows:
        """Draw ``n`` hidden rows; the magnitudes are the features that the model read."""
        if n < 1:
            raise UserError(f"a sample has at least 1 row, got {n}")
        x_BF = draw_features(n, self.config, generator)
        active_BF = x_BF > 0
        offsets = F.pad(active_BF.sum(1).cumsum(0), (1, 0))
        magnitudes_BF = Codes(x_BF[active_BF], active_BF.nonzero()[:, 1], offsets, self.config.n_features)
        return SyntheticRows(self.hidden(x_BF), magnitudes_BF)

    def batches(self, batch: int, generator: torch.Generator) -> Iterator[dict[str, Float[Tensor, "B D"]]]:
        """Batches of hidden rows without end at the site ``synthetic``, as the training loop reads them."""
        while True:
            yield {"synthetic": self.sample(batch, generator).x_BD}


def draw_features(n: int, config: ToySuperpositionConfig, generator: torch.Generator) -> Float[Tensor, "B F"]:
    """Features that are 0 with probability ``sparsity`` and else uniform in (0, 1]."""
    shape = (n, config.n_features)
    is_active = torch.rand(shape, generator=generator) >= config.sparsity
    return is_active * (1 - torch.rand(shape, generator=generator))


def train_toy_superposition(config: ToySuperpositionConfig) -> ToySuperposition:
    """Train ``restarts`` models on the same rows and keep the best; the default takes a second or two."""
    generator = torch.Generator().manual_seed(config.seed)
    shape = (config.restarts, config.d_model, config.n_features)
    with torch.enable_grad():
        W = (0.5 * config.d_model**-0.5 * torch.randn(shape, generator=generator)).requires_grad_()
        b = torch.zeros(config.restarts, 1, config.n_features, requires_grad=True)
        optimizer = torch.optim.Adam([W, b], lr=config.lr)
        for step in range(config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.lr * min(1.0, 2 * (1 - step / config.steps))
            x_BF = draw_features(config.batch, config, generator)
            optimizer.zero_grad()
            _losses(x_BF, W, b, config.importances).sum().backward()
            optimizer.step()
    with torch.no_grad():
        x_BF = draw_features(_JUDGING_ROWS, config, generator)
        losses = _losses(x_BF, W, b, config.importances)
        best = int(losses.argmin())
    return ToySuperposition(config, W[best].detach(), b[best, 0].detach(), losses[best].item())


def _losses(
    x_BF: Float[Tensor, "B F"],
    W: Float[Tensor, "restarts D F"],
    b: Float[Tensor, "restarts 1 F"],
    importances_F: Float[Tensor, " F"],
) -> Float[Tensor, " restarts"]:
    error = x_BF - _reconstruct(x_BF, W, b)
    return (importances_F * error.square()).sum(2).mean(1)


def _reconstruct(
    x_BF: Float[Tensor, "B F"], W: Float[Tensor, "*restarts D F"], b: Float[Tensor, "*row F"]
) -> Float[Tensor, "*restarts B F"]:
    return torch.relu(x_BF @ W.mT @ W + b)
