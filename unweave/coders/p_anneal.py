"""P-anneal: a ReLU coder whose L1 penalty turns step by step into an Lp penalty, p < 1 (Karvonen et al. 2024).

From "Measuring Progress in Dictionary Learning" (arXiv 2408.00113). f = relu((x - b_dec) W_enc^T + b_enc), y_hat = f
W_dec + b_dec, L = |y - y_hat|^2 + l_coefficient * alpha * sum_i f_i^p, the first summed over D, both averaged over B.
Decoder rows are kept at unit norm. Up to the share ``anneal_start`` of the run p = 1 and alpha = 1; from there p falls
to ``p_end`` in ``anneal_steps`` equal steps at equal distances, so that the last step lies within the run. A smaller p
counts latents rather than their activations and shrinks them less.

With each step of p, alpha is multiplied by sum f^p_old / sum f^p_new, so that the size of the penalty does not jump. We
take the sums over the batch of that step; the authors' code takes the mean over ten batches, and also offers the p-th
root of each row's sum. The whole penalty rises linearly from 0 over the first ``l_warm_up`` of the run.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.coders.base import CoderConfig, CoderStep, Moment, SparseCoder, mean_squared_error, warm_up
from unweave.coders.wiring import Wiring
from unweave.errors import UserError
from unweave.kernels.selection import Above
from unweave.types import Codes


@dataclass(frozen=True, kw_only=True)
class PAnnealConfig(CoderConfig):
    """Settings of a p-anneal coder."""

    l_coefficient: float = 0.1
    """Weight of the sparsity penalty at its start, where it is L1; higher means fewer active latents."""
    l_warm_up: float = 0.05
    """Share of the run over which the penalty rises from 0."""
    p_end: float = 0.2
    """Power of the activations in the penalty at the end of the run."""
    anneal_start: float = 0.1
    """Share of the run after which the power begins to fall from 1."""
    anneal_steps: int = 10
    """Number of steps in which the power falls."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.l_coefficient < 0:
            raise UserError(f"coder.l_coefficient must not be negative, got {self.l_coefficient}")
        if not 0 <= self.l_warm_up <= 1:
            raise UserError(f"coder.l_warm_up is a share of the run in [0, 1], got {self.l_warm_up}")
        if not 0 < self.p_end <= 1:
            raise UserError(f"coder.p_end must be in (0, 1], got {self.p_end}")
        if not 0 <= self.anneal_start < 1:
            raise UserError(f"coder.anneal_start is a share of the run in [0, 1), got {self.anneal_start}")
        if self.anneal_steps < 1:
            raise UserError(f"coder.anneal_steps must be at least 1, got {self.anneal_steps}")
        if self.decoder_norm == "free":
            raise UserError('p_anneal needs decoder_norm="unit": free norms escape its penalty')


@final
class PAnneal(SparseCoder):
    """See the module's docstring for the maths."""

    Config = PAnnealConfig
    sparsity = "l_coefficient"
    config: PAnnealConfig
    alpha: Tensor
    power: Tensor

    def __init__(self, config: PAnnealConfig, wiring: Wiring) -> None:
        super().__init__(config, wiring)
        self.register_buffer("alpha", torch.tensor(1.0))
        self.register_buffer("power", torch.tensor(1.0))

    @torch.no_grad()
    def encode(self, x_BD: Float[Tensor, "B D"]) -> Codes:
        return self.active(x_BD, Above(0.0))

    def loss(self, x_BD: Float[Tensor, "B D_read"], y_BD: Float[Tensor, "B D_write"], moment: Moment) -> CoderStep:
        codes = self.active(x_BD, Above(0.0))
        y_hat_BD = self.reconstruct(codes, x_BD)
        sum_of_powers = codes.values.pow(self._anneal(codes.values, moment.progress)).sum()
        coefficient = self.config.l_coefficient * warm_up(moment.progress, self.config.l_warm_up)
        penalty = coefficient * self.alpha * sum_of_powers / x_BD.shape[0]
        return CoderStep({"mse": mean_squared_error(y_hat_BD, y_BD), "lp": penalty}, codes, y_hat_BD)

    @torch.no_grad()
    def _anneal(self, values: Float[Tensor, " E"], progress: float) -> float:
        """The power for now; where it differs from the last one, ``alpha`` makes up for it on these activations."""
        power = power_at(progress, self.config)
        if progress >= self.config.anneal_start:
            # the last power stays on the device, so nothing waits to learn whether it changed
            ratio = values.pow(self.power).sum() / values.pow(power).sum()
            self.alpha.mul_(torch.where((self.power != power) & ratio.isfinite(), ratio, 1.0))
            self.power.fill_(power)
        return power


def power_at(progress: float, config: PAnnealConfig) -> float:
    """The power in the penalty when a share ``progress`` of the run is done."""
    if progress < config.anneal_start:
        return 1.0
    annealed = (progress - config.anneal_start) / (1.0 - config.anneal_start)
    steps = min(config.anneal_steps, 1 + int(annealed * config.anneal_steps))
    return 1.0 - (1.0 - config.p_end) * steps / config.anneal_steps
