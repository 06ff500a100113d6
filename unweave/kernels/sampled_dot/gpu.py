"""Sampled dot product for GPUs, in Triton: one program per block of entries.

Entries are taken in the order of their latents, which the weight gradients need anyway: neighbours then share the row
of ``right``, so each of its rows comes from memory once, and ``left``, which is much smaller, stays in L2. In the order
of rows it would be the other way round, and with 4 entries for each latent four times the memory traffic.
"""

import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from unweave.kernels.programs import block_of, ceil_div, n_warps, program, sum_type
from unweave.types import Codes

_ENTRIES = 16


def sampled_dot(codes: Codes, left: Float[Tensor, "B D"], right: Float[Tensor, "L D"]) -> Float[Tensor, " E"]:
    """See the reference."""
    entries, rows, _ = codes.by_latent
    n, width = entries.shape[0], left.shape[1]
    out = left.new_empty(n)
    block = block_of(width, 128)
    _sampled_dot[(ceil_div(n, _ENTRIES),)](
        left.contiguous(),
        right.contiguous(),
        entries,
        rows,
        codes.latent_ids,
        out,
        n,
        width,
        ENTRIES=_ENTRIES,
        BLOCK=block,
        SUM=sum_type(left),
        num_warps=n_warps(_ENTRIES * block, 16),
    )
    return out


@program
def _sampled_dot(  # type: ignore[no-untyped-def]
    left,
    right,
    entries,
    rows,
    latents,
    out,
    n,
    width,
    ENTRIES: tl.constexpr,
    BLOCK: tl.constexpr,
    SUM: tl.constexpr,
):
    place = tl.program_id(0) * ENTRIES + tl.arange(0, ENTRIES)
    entry = tl.load(entries + place, mask=place < n, other=0)
    row = tl.load(rows + place, mask=place < n, other=0).to(tl.int64)
    latent = tl.load(latents + entry, mask=place < n, other=0).to(tl.int64)
    total = tl.zeros((ENTRIES, BLOCK), SUM)
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        used = (place < n)[:, None] & (column < width)[None, :]
        ours = tl.load(left + row[:, None] * width + column[None, :], mask=used, other=0.0)
        theirs = tl.load(right + latent[:, None] * width + column[None, :], mask=used, other=0.0)
        total += ours.to(SUM) * theirs.to(SUM)
    tl.store(out + entry, tl.sum(total, 1), mask=place < n)
