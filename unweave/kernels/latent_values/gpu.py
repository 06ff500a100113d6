"""Sums of the values of each latent or row for GPUs, in Triton: one program per run, in a fixed order, no atomics.

A value is 2 to 8 bytes, so a run is not cut: a latent that fires on all of 8192 rows is 64 steps.
"""

import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from unweave.kernels.programs import program, sum_type
from unweave.types import Codes

_BLOCK = 128


def latent_sum(codes: Codes, values: Float[Tensor, " E"]) -> Float[Tensor, " L"]:
    """Sum of the values at each latent's entries."""
    entries, _, offsets = codes.by_latent
    return _sums(values[entries], offsets)


def row_sum(codes: Codes, values: Float[Tensor, " E"]) -> Float[Tensor, " B"]:
    """Sum of the values at each row's entries; no gradient."""
    return _sums(values.contiguous(), codes.row_offsets[:-1])


def _sums(values: Float[Tensor, " E"], starts: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    n = starts.shape[0]
    out = values.new_empty(n)
    _sum_runs[(n,)](values, starts, out, n, values.shape[0], BLOCK=_BLOCK, SUM=sum_type(values), num_warps=1)
    return out


@program
def _sum_runs(  # type: ignore[no-untyped-def]
    values, starts, out, n_runs, n_entries, BLOCK: tl.constexpr, SUM: tl.constexpr
):
    run = tl.program_id(0)
    start = tl.load(starts + run)
    end = tl.load(starts + run + 1, mask=run + 1 < n_runs, other=n_entries)
    total = tl.zeros((BLOCK,), SUM)
    for first in range(start, end, BLOCK):
        entry = first + tl.arange(0, BLOCK)
        total += tl.load(values + entry, mask=entry < end, other=0.0).to(SUM)
    tl.store(out + run, tl.sum(total, 0))
