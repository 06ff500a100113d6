"""Weighted sums of rows over runs of a list, in Triton: what a decode and a weight gradient have in common.

``out[n] = sum of weights[e] * source[ids[e]] over the entries e of run n``, which begins at ``starts[n]`` and ends
where the next begins. Sums are made in float32 (float64 for float64), in an order that follows from shapes; no atomics.

One program makes a slice of one row of the result. All runs of a slice come before those of the next, so what is
gathered at a time is a slice of the source that fits into L2: each element of the source then comes from memory once,
however many runs use it. An entry whose weight is 0 is not gathered.

Where a run may be long (a latent that fires on most rows), the list is also cut into pieces. A first pass sums each
piece that lies inside one run; the second adds up, for each run, the pieces inside it and what is left at both ends.
A program then takes less than ``2 * PIECE + length / PIECE`` steps: for a latent that fires on all of 8192 rows 320
instead of 8192, which would outlast the rest of the grid. For 64 entries in each of 4096 rows over 65,536 latents, the
first pass has 2048 pieces beside the 65,536 runs, and most programs of it end after two loads.
"""

from typing import Any

import torch
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from unweave.kernels.programs import ceil_div, n_warps, power_of_2, program, slice_of, sum_type, wide

PIECE = 128
"""Entries of a piece."""


def run_sum(
    starts: Int[Tensor, " N"],
    ids: Int[Tensor, " E"],
    weights: Float[Tensor, " E"],
    source: Float[Tensor, "M D"],
    runs: Int[Tensor, " E"] | None = None,
) -> Float[Tensor, "N D"]:
    """See above; ``runs``, the run of each entry, is given where runs may be long."""
    n, width, n_entries = starts.shape[0], source.shape[1], ids.shape[0]
    weights, source = weights.contiguous(), source.contiguous()
    block = slice_of(source)
    entries = min(16, max(4, power_of_2(n_entries // max(1, n))))
    sizes: dict[str, Any] = {"ENTRIES": entries, "BLOCK": block, "PIECE": PIECE, "SUM": sum_type(source)}
    sizes["num_warps"] = n_warps(entries * block, 16)
    columns = ceil_div(width, block)
    n_pieces = 0 if runs is None else n_entries // PIECE
    pieces = torch.empty(n_pieces, width, dtype=wide(source), device=source.device)
    if n_pieces:
        _sum_pieces[(n_pieces, columns)](runs, ids, weights, source, pieces, width, **sizes)
    out = source.new_empty(n, width)
    _sum_runs[(n, columns)](starts, ids, weights, source, pieces, out, n, n_entries, n_pieces, width, **sizes)
    return out


@program
def _sum_pieces(  # type: ignore[no-untyped-def]
    runs,
    ids,
    weights,
    source,
    pieces,
    width,
    ENTRIES: tl.constexpr,
    BLOCK: tl.constexpr,
    PIECE: tl.constexpr,
    SUM: tl.constexpr,
):
    """Sums of the pieces that lie inside one run; the others are not written."""
    piece = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    start = piece * PIECE
    if tl.load(runs + start) == tl.load(runs + start + PIECE - 1):
        total = _gathered(ids, weights, source, start, start + PIECE, column, width, ENTRIES, BLOCK, SUM)
        tl.store(pieces + piece * width + column, total, mask=column < width)


@program
def _sum_runs(  # type: ignore[no-untyped-def]
    starts,
    ids,
    weights,
    source,
    pieces,
    out,
    n_runs,
    n_entries,
    n_pieces,
    width,
    ENTRIES: tl.constexpr,
    BLOCK: tl.constexpr,
    PIECE: tl.constexpr,
    SUM: tl.constexpr,
):
    """A slice of the sum of one run."""
    run = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    start = tl.load(starts + run)
    end = tl.load(starts + run + 1, mask=run + 1 < n_runs, other=n_entries)
    first = (start + PIECE - 1) // PIECE
    last = tl.minimum(end // PIECE, n_pieces)
    if first < last:
        total = _gathered(ids, weights, source, start, first * PIECE, column, width, ENTRIES, BLOCK, SUM)
        for piece in range(first, last):
            total += tl.load(pieces + piece * width + column, mask=column < width, other=0.0)
        total += _gathered(ids, weights, source, last * PIECE, end, column, width, ENTRIES, BLOCK, SUM)
    else:
        total = _gathered(ids, weights, source, start, end, column, width, ENTRIES, BLOCK, SUM)
    tl.store(out + run * width + column, total, mask=column < width)


@program
def _gathered(  # type: ignore[no-untyped-def]
    ids, weights, source, start, end, column, width, ENTRIES: tl.constexpr, BLOCK: tl.constexpr, SUM: tl.constexpr
):
    """The weighted sum of the entries from ``start`` to ``end`` at some columns; ENTRIES rows at a time."""
    total = tl.zeros((ENTRIES, BLOCK), SUM)
    for first in range(start, end, ENTRIES):
        entry = first + tl.arange(0, ENTRIES)
        weight = tl.load(weights + entry, mask=entry < end, other=0.0).to(SUM)
        row = tl.load(ids + entry, mask=entry < end, other=0).to(tl.int64)
        used = (weight != 0)[:, None] & (column < width)[None, :]
        part = tl.load(source + row[:, None] * width + column[None, :], mask=used, other=0.0)
        total += weight[:, None] * part.to(SUM)
    return tl.sum(total, 0)
