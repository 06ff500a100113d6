"""The squared error of every prefix of a row's latents, each latent decoded once.

The entries of a row fall into groups 1..G. Prefix g, the groups 1 to g, writes y_hat_g = b_dec + the sum of value(e) *
W_dec[latent(e)] over its entries e, so y_hat_g = y_hat_(g-1) + what group g writes. The loss is the mean over prefixes
of |y - y_hat_g|^2, summed over D and averaged over rows. The gradient of what group j writes is the suffix sum
2 / (B G) * sum_{g >= j} (y_hat_g - y). The G groups of a row are decoded as if they were G rows, some rows at a time,
so that no [rows, G, D] exceeds the larger of [B, D] and [L, D]; gradients are computed along with the loss.
"""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from unweave.coders.base import SparseCoder
from unweave.kernels.sampled_dot import sampled_dot
from unweave.kernels.segment_sum import segment_sum
from unweave.kernels.sparse_decode import sparse_decode
from unweave.types import Codes


def prefix_loss(
    coder: SparseCoder,
    codes: Codes,
    groups_E: Int[Tensor, " E"],
    n_groups: int,
    x_BD: Float[Tensor, "B D_read"],
    y_BD: Float[Tensor, "B D_write"],
) -> tuple[Float[Tensor, ""], Float[Tensor, "B D_write"]]:
    """The loss, and what all latents of each row write, both differentiable.

    ``groups_E`` counts from 0. The entries of a row are in the order of their groups, those of a group in the order of
    their latents.
    """
    start_BD = coder.b_dec.expand_as(y_BD) if coder.W_skip is None else coder.b_dec + x_BD @ coder.W_skip.T
    slots_E = codes.row_ids * n_groups + groups_E
    # bincount would make a GPU tell the largest slot
    counts = slots_E.new_zeros(codes.n_rows * n_groups).scatter_add_(0, slots_E, torch.ones_like(slots_E))
    grouped = Codes(codes.values, codes.latent_ids, F.pad(counts.cumsum(0), (1, 0)), codes.n_latents)
    learns = torch.is_grad_enabled()
    return _PrefixLoss.apply(codes.values, coder.W_dec, start_BD, y_BD, codes, grouped, n_groups, learns)


class _PrefixLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        W_dec: Tensor,
        start_BD: Tensor,
        y_BD: Tensor,
        codes: Codes,
        grouped: Codes,
        n_groups: int,
        learns: bool,
    ) -> tuple[Tensor, Tensor]:
        offset_BD, y_hat_BD = start_BD - y_BD, torch.empty_like(y_BD)
        grad_values, grad_W_dec = torch.zeros_like(values), torch.zeros_like(W_dec)
        grad_start_BD = torch.empty_like(y_BD)
        loss = y_BD.new_zeros(())
        scale = 1.0 / (y_BD.shape[0] * n_groups)
        for rows, entries, block in _blocks(grouped, n_groups):
            errors_bGD = sparse_decode(block, W_dec).view(-1, n_groups, y_BD.shape[1])
            errors_bGD[:, 0] += offset_BD[rows]
            for g in range(1, n_groups):
                errors_bGD[:, g] += errors_bGD[:, g - 1]
            loss += scale * torch.linalg.vector_norm(errors_bGD).square()
            y_hat_BD[rows] = errors_bGD[:, -1] + y_BD[rows]
            if not learns:
                continue
            for g in range(n_groups - 2, -1, -1):
                errors_bGD[:, g] += errors_bGD[:, g + 1]
            grad_start_BD[rows] = 2.0 * scale * errors_bGD[:, 0]
            suffixes = errors_bGD.flatten(0, 1).mul_(2.0 * scale)
            grad_values[entries] = sampled_dot(block, suffixes, W_dec)
            grad_W_dec += segment_sum(block, block.values, suffixes)
        ctx.set_materialize_grads(False)
        ctx.codes = codes
        ctx.save_for_backward(W_dec, grad_values, grad_W_dec, grad_start_BD)
        return loss, y_hat_BD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_loss, grad_y_hat_BD = grads
        W_dec, *of_loss = ctx.saved_tensors
        total = [None if grad_loss is None else grad_loss * part for part in of_loss]
        if grad_y_hat_BD is not None:
            codes: Codes = ctx.codes
            of_y_hat = (
                sampled_dot(codes, grad_y_hat_BD, W_dec),
                segment_sum(codes, codes.values.detach(), grad_y_hat_BD),
                grad_y_hat_BD,
            )
            total = [b if a is None else a + b for a, b in zip(total, of_y_hat, strict=True)]
        return *total, None, None, None, None, None


def _blocks(grouped: Codes, n_groups: int) -> list[tuple[slice, slice, Codes]]:
    """Slices of rows and of entries, with the codes of these rows; a GPU waits for the edges where they are several."""
    n_rows = grouped.n_rows // n_groups
    n_entries, offsets = grouped.values.shape[0], grouped.row_offsets
    step = max(1, max(n_rows, grouped.n_latents) // n_groups)
    edges = [0, n_entries]
    if step < n_rows:
        edges = [*offsets[:: step * n_groups].tolist()]
        edges += [n_entries] if n_rows % step else []
    blocks = []
    for i, (begin, end) in enumerate(pairwise(edges)):
        rows = slice(i * step, min(n_rows, (i + 1) * step))
        block_offsets = offsets[rows.start * n_groups : rows.stop * n_groups + 1] - begin
        entries = slice(begin, end)
        part = Codes(grouped.values[entries], grouped.latent_ids[entries], block_offsets, grouped.n_latents)
        blocks.append((rows, entries, part))
    return blocks
