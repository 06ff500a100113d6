"""HierarchicalTopK: one TopK coder that works at every k up to its own (Balagansky et al. 2025, arXiv 2505.24473).

With h = (x - b_dec) W_enc^T + b_enc, f keeps the k largest positive entries of h in each row: v_1 >= v_2 >= ... of
latents i_1, i_2, ... The j largest alone write y_hat_j = sum_{t <= j} v_t w_(i_t) + b_dec. Loss: the mean over j in J
of |y - y_hat_j|^2, summed over D and averaged over B, plus AuxK for dead latents on the error of y_hat_k. J is {1..k},
or the ``budgets`` given, and k, where that is still above its end. In use it keeps k latents; codes narrowed to the j
largest of each row serve a budget of j.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.coders.base import CoderStep, Moment, SparseCoder
from unweave.coders.dead_loss import aux_losses
from unweave.coders.k_schedule import FallingKConfig, whole_k_at
from unweave.coders.prefix_loss import prefix_loss
from unweave.errors import UserError
from unweave.kernels.device import constant
from unweave.kernels.selection import TopKOfRow
from unweave.types import Codes


@dataclass(frozen=True, kw_only=True)
class HierarchicalTopKConfig(FallingKConfig):
    """Settings of a HierarchicalTopK coder."""

    k: int = 32
    """Active latents per row, the largest budget."""
    budgets: tuple[int, ...] = ()
    """Numbers of latents whose reconstructions the loss counts, ascending to k; empty: each from 1 to k."""

    def __post_init__(self) -> None:
        super().__post_init__()
        ascends = all(a < b for a, b in zip((0, *self.budgets), self.budgets, strict=False))
        if not ascends or self.budgets[-1:] not in ((), (self.k,)):
            raise UserError(f"coder.budgets must ascend from at least 1 to k={self.k}, got {list(self.budgets)}")


@final
class HierarchicalTopK(SparseCoder):
    """See the module's docstring for the maths."""

    Config = HierarchicalTopKConfig
    reconstruction_losses = ("prefix_mse",)
    config: HierarchicalTopKConfig
    per_latent = ()  # rescaling one latent would change which are the largest

    @torch.no_grad()
    def encode(self, x_BD: Float[Tensor, "B D"]) -> Codes:
        return self.active(x_BD, TopKOfRow(self.config.k))

    def loss(self, x_BD: Float[Tensor, "B D_read"], y_BD: Float[Tensor, "B D_write"], moment: Moment) -> CoderStep:
        k = whole_k_at(self.config, moment.progress)
        codes = self.active(x_BD, TopKOfRow(k))
        budgets = constant(tuple(sorted({*(self.config.budgets or range(1, k + 1)), k})), x_BD.device)
        groups_E = torch.bucketize(_rank_in_row(codes), budgets, right=True)
        order = (codes.row_ids * len(budgets) + groups_E).argsort(stable=True)
        ranked = Codes(codes.values[order], codes.latent_ids[order], codes.row_offsets, codes.n_latents)
        mse, y_hat_BD = prefix_loss(self, ranked, groups_E[order], len(budgets), x_BD, y_BD)
        losses = {"prefix_mse": mse} | aux_losses(self, x_BD, y_BD, y_hat_BD, moment)
        return CoderStep(losses, codes, y_hat_BD)


@torch.no_grad()
def _rank_in_row(codes: Codes) -> Int[Tensor, " E"]:
    """How many entries of its row are larger, ties to the lower latent."""
    by_size = codes.values.argsort(descending=True, stable=True)
    order = by_size[codes.row_ids[by_size].argsort(stable=True)]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device) - codes.row_offsets[:-1][codes.row_ids]
    return rank
