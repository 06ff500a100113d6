"""Neuron resampling, as in Bricken et al. 2023 ("Towards Monosemanticity", appendix on neuron resampling).

At set times the loss of each of many rows is computed. For each dead latent one row is drawn with a chance in
proportion to its squared loss. The latent's decoder row becomes that row's direction (from the mean, where the coder
centres its input), its encoder row the direction of what was read times 0.2 of the mean encoder norm of living latents,
its bias 0; the optimizer forgets those rows. The learning rate falls to a tenth and rises again.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from unweave.coders import SparseCoder
from unweave.training.optimizer import CoderOptimizer

_ENCODER_SHARE = 0.2
CUT = 0.1
"""Factor on the learning rate right after resampling."""


class Draws:
    """Rows drawn with replacement from a stream, each with a chance in proportion to its squared loss."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count = count
        self.generator = generator
        self.seen = 0.0
        self.rows: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def update(self, coder: SparseCoder, x: Float[Tensor, "B D_read"], y: Float[Tensor, "B D_write"]) -> bool:
        """See a batch: each draw moves into it with the batch's share of all squared losses so far.

        Returns whether all losses were finite; draws do not move where they were not.
        """
        chance = (y - coder(x)).square().sum(1).double().square().cpu()
        weight = chance.sum().item()
        if weight == 0 or not math.isfinite(weight):
            return weight == 0
        self.seen += weight
        picks = torch.multinomial(chance, self.count, replacement=True, generator=self.generator).to(x.device)
        moves = (torch.rand(self.count, generator=self.generator) < weight / self.seen).to(x.device)[:, None]
        old = self.rows or (x[picks], y[picks])
        self.rows = torch.where(moves, x[picks], old[0]), torch.where(moves, y[picks], old[1])
        return True


@torch.no_grad()
def resample(coder: SparseCoder, optimizer: CoderOptimizer, dead: Int[Tensor, " n_dead"], draws: Draws) -> None:
    """Give the dead latents new weights from the rows that were drawn, one for each."""
    if draws.rows is None:
        return  # every row is reconstructed without error
    x, y = draws.rows
    if coder.config.centre:
        x, y = x - coder.b_dec, y - coder.b_dec
    living = torch.ones(coder.n_latents, dtype=torch.bool, device=dead.device)
    living[dead] = False
    if not bool(living.any()):
        living[:] = True
    decoder_norm = coder.W_dec.norm(dim=1)[living].mean() if coder.config.decoder_norm == "free" else 1.0
    encoder_norm = _ENCODER_SHARE * coder.W_enc.norm(dim=1)[living].mean()
    coder.W_dec[dead] = decoder_norm * F.normalize(y, dim=1)
    coder.W_enc[dead] = encoder_norm * F.normalize(x, dim=1)
    coder.b_enc[dead] = 0.0
    optimizer.forget_rows(dead)
