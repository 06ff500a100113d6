"""ReLU with an L1 penalty: the sparse autoencoder of Bricken et al. 2023 ("Towards Monosemanticity").

f = relu((x - b_dec) W_enc^T + b_enc), x_hat = f W_dec + b_dec, and
L = |x - x_hat|^2 + l1_coefficient * sum_i f_i, the first summed over D, both averaged over B.
Decoder rows are kept at unit norm, so the penalty cannot be escaped by shrinking f and growing W_dec.
The penalty rises linearly from 0 over the first ``l1_warm_up`` of the run.
"""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from unweave.coders.base import CoderConfig, CoderStep, Moment, SparseCoder
from unweave.errors import UserError
from unweave.kernels.selection import above_threshold
from unweave.types import Codes


@dataclass(frozen=True, kw_only=True)
class ReluConfig(CoderConfig):
    """Settings of a ReLU coder."""

    l1_coefficient: float = 0.1
    """Weight of the sparsity penalty; higher means fewer active latents. Rows are scaled to a mean square norm of 1."""
    l1_warm_up: float = 0.1
    """Share of the run over which the penalty rises from 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.l1_coefficient < 0:
            raise UserError(f"coder.l1_coefficient must not be negative, got {self.l1_coefficient}")
        if not 0 <= self.l1_warm_up <= 1:
            raise UserError(f"coder.l1_warm_up is a share of the run in [0, 1], got {self.l1_warm_up}")


@final
class Relu(SparseCoder):
    """See the module's docstring for the maths."""

    Config = ReluConfig
    config: ReluConfig

    def encode(self, x_BD: Float[Tensor, "B D"]) -> Codes:
        return above_threshold(self.preactivations(x_BD), 0.0)

    def loss(self, x_BD: Float[Tensor, "B D"], moment: Moment) -> CoderStep:
        codes = self.with_gradient(self.encode(x_BD), x_BD)
        x_hat_BD = self.decode(codes)
        warm_up = min(1.0, moment.progress / self.config.l1_warm_up) if self.config.l1_warm_up > 0 else 1.0
        losses = {
            "mse": (x_hat_BD - x_BD).square().sum(1).mean(),
            "l1": self.config.l1_coefficient * warm_up * codes.values.sum() / x_BD.shape[0],
        }
        return CoderStep(losses, codes, x_hat_BD)
