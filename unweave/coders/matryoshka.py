"""Matryoshka: BatchTopK whose first latents must also do without the rest (Bussmann et al. 2025, arXiv 2503.17547).

With h = (x - b_dec) W_enc^T + b_enc, training keeps the B*k largest positive entries of h over the batch; in use an
entry is active above a threshold, both as in ``batch_topk``. Prefix g holds the first m_g latents and writes y_hat_g =
sum_{i < m_g} f_i w_i + b_dec. Loss: the mean over g = 1..G of |y - y_hat_g|^2, summed over D and averaged over B, with
m_G = n_latents, plus AuxK for dead latents on the error of the full reconstruction. So early latents learn general
directions that are useful without the later ones, which have nothing to gain from absorbing them.

``prefixes`` as fractions of n_latents are the same at every step; the paper's groups of 1/32, 1/16, 1/8, 1/4 and the
rest end at 1/32, 3/32, 7/32, 15/32 and 1. With ``random``, each step draws ``n_prefixes`` - 1 different lengths m <
n_latents with probability proportional to sqrt(m) - sqrt(m - 1), a truncated Pareto distribution of power 1/2, as
Nabeshima (2024) does, whose coder is otherwise a ReLU coder that also sorts latents by size. Draws follow from the
progress of the run alone, so that a run which is resumed, and every process of it, draws the same. The published code
of the paper counts the error of b_dec alone as one more prefix; the paper and this do not.
"""

import struct
from dataclasses import dataclass
from typing import Literal, final
from zlib import crc32

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.coders.base import CoderStep, Moment, SparseCoder
from unweave.coders.batch_topk import BatchTopKConfig, follow_threshold
from unweave.coders.dead_loss import aux_losses
from unweave.coders.k_schedule import k_at
from unweave.coders.prefix_loss import prefix_loss
from unweave.coders.wiring import Wiring
from unweave.errors import UserError
from unweave.kernels.device import constant
from unweave.kernels.selection import Above, TopKOfBatch
from unweave.types import Codes


@dataclass(frozen=True, kw_only=True)
class MatryoshkaConfig(BatchTopKConfig):
    """Settings of a Matryoshka coder."""

    prefixes: tuple[float, ...] | Literal["random"] = (1 / 32, 3 / 32, 7 / 32, 15 / 32, 1.0)
    """Where prefixes end, as ascending fractions of n_latents up to 1, or random: drawn at each step."""
    n_prefixes: int | None = None
    """Prefixes per step where they are random, the full one among them; 10 if not given."""

    def __post_init__(self) -> None:
        if self.prefixes == "random":
            self._fill(n_prefixes=min(10, self.n_latents))
        super().__post_init__()
        self._check_prefixes()

    def _check_prefixes(self) -> None:
        if self.prefixes == "random":
            if self.n_prefixes is None or not 0 < self.n_prefixes <= self.n_latents:
                raise UserError(f"coder.n_prefixes must be in 1..{self.n_latents} (n_latents), got {self.n_prefixes}")
            return
        if self.n_prefixes is not None:
            raise UserError(f'coder.n_prefixes={self.n_prefixes} has no effect without coder.prefixes="random"')
        ascends = all(a < b for a, b in zip((0.0, *self.prefixes), self.prefixes, strict=False))
        if not ascends or self.prefixes[-1:] != (1.0,):
            raise UserError(f"coder.prefixes must ascend from above 0 to 1, got {list(self.prefixes)}")


@final
class Matryoshka(SparseCoder):
    """See the module's docstring for the maths."""

    Config = MatryoshkaConfig
    reconstruction_losses = ("prefix_mse",)
    in_activation_units = ("b_enc", "threshold")
    per_latent = ()  # one threshold for all
    config: MatryoshkaConfig
    threshold: Tensor

    def __init__(self, config: MatryoshkaConfig, wiring: Wiring) -> None:
        super().__init__(config, wiring)
        self.register_buffer("threshold", torch.tensor(0.0))

    @torch.no_grad()
    def encode(self, x_BD: Float[Tensor, "B D"]) -> Codes:
        return self.active(x_BD, Above(self.threshold))

    def loss(self, x_BD: Float[Tensor, "B D_read"], y_BD: Float[Tensor, "B D_write"], moment: Moment) -> CoderStep:
        codes = self.active(x_BD, TopKOfBatch(k_at(self.config, moment.progress)))
        follow_threshold(self.threshold, codes, self.config.threshold_decay, self.peers)
        ends = constant(tuple(self.prefix_lengths(moment.progress)), x_BD.device)
        groups_E = torch.bucketize(codes.latent_ids, ends, right=True)
        mse, y_hat_BD = prefix_loss(self, codes, groups_E, len(ends), x_BD, y_BD)
        losses = {"prefix_mse": mse} | aux_losses(self, x_BD, y_BD, y_hat_BD, moment)
        return CoderStep(losses, codes, y_hat_BD)

    def prefix_lengths(self, progress: float) -> list[int]:
        """Numbers of latents in the prefixes of a step, ascending, the last n_latents; equal ones count once."""
        prefixes, n_prefixes = self.config.prefixes, self.config.n_prefixes
        if isinstance(prefixes, tuple):
            return sorted({max(1, round(fraction * self.n_latents)) for fraction in prefixes})
        assert n_prefixes is not None
        return random_prefixes(self.n_latents, n_prefixes, progress)


def random_prefixes(n_latents: int, n_prefixes: int, progress: float) -> list[int]:
    """Different lengths of a truncated Pareto distribution and n_latents, drawn anew at each progress of the run."""
    if n_prefixes == 1:
        return [n_latents]
    # a checksum, because a generator looks at the lowest 32 bits of a seed alone
    generator = torch.Generator().manual_seed(crc32(struct.pack("<d", progress)))
    weights = torch.arange(n_latents, dtype=torch.float64).sqrt().diff()
    drawn = torch.multinomial(weights, n_prefixes - 1, replacement=False, generator=generator)
    return [*(drawn + 1).sort().values.tolist(), n_latents]
