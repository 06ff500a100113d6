"""Selection for GPUs: the rules, made of a few passes over the matrix, most of which read little of it.

The number of entries follows from shapes, so that nothing waits for the device: k for each row, int(B*k) for the batch,
one for each group. Where fewer are positive, the others are explicit zeros. ``Above`` alone waits, once, for a count.

**Rows and batches.** The first pass reads the matrix and writes the largest key of each group, eight groups or more
for each wanted entry (the delegates of Gaihre et al. 2021, Dr. Top-k, arXiv 2109.08219). The k-th largest of a row's
group maxima is a lower bound of its k-th largest key, so only groups that reach it are read again: one in eight. A
row's keys above the bound, a little more than k, are collected, and the k-th largest is found among them in registers.
So the matrix comes from memory once and an eighth.

Why not ``torch.topk``? It selects by radix too, but reads every row once for each digit and again to gather, sorts what
it found by value where codes need the order of latents, and leaves open which of equal numbers it keeps; in bfloat16
many are equal. Xie et al. 2025 (RTop-K, arXiv 2409.00822) search each row for its threshold instead, as is done here,
and report an average speed-up of up to 7.29.

**Batch.** The cut is the n-th largest key of all. It is found by digits of 16 bits, one for bfloat16 and two for
float32: a histogram of the digit over the keys that reach the bound, again from group maxima, then the next digit among
those that agree so far. Ties go to lower rows; explicit zeros are spread over rows.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from unweave.kernels.programs import ceil_div, n_warps, power_of_2, sum_type
from unweave.kernels.selection import passes
from unweave.kernels.selection.rules import Above, GroupMax, Rule, TopKOfBatch, TopKOfRow
from unweave.types import Codes

WHOLE = 4096
"""Latents up to which a program holds a whole row."""
GROUPS_PER_ENTRY = 8
"""Groups of a row for each entry that is wanted; more make the bound tighter and the list of maxima longer."""
SPACE = 1024, 8192
"""Least and most keys of a row that are collected; four times as many as are wanted, where that lies between."""
TILE = 2048
"""Entries that a program looks at together."""
_DIGIT = 16
Listed = tuple[Tensor, ...]
"""Each row's groups that can matter [B, G], and how many [B]."""


def select(pre: Float[Tensor, "B L"], rule: Rule) -> Codes:
    """Codes of the entries that a rule keeps; ties go to the lower row, then latent. A NaN counts as not positive."""
    pre = pre.contiguous()
    match rule:
        case TopKOfRow(k, signed):
            return _top_k_of_row(pre, min(k, pre.shape[1]), signed)
        case TopKOfBatch(k):
            return _top_k_of_batch(pre, float(k))
        case Above(threshold):
            return _above(pre, threshold)
        case GroupMax(n_groups):
            return _group_max(pre, n_groups)


@dataclass(frozen=True)
class _Groups:
    """How rows are cut into groups."""

    n: int
    width: int

    @classmethod
    def of(cls, n_latents: int, wanted: float) -> "_Groups":
        """Groups of 8 to 1024 latents, but no more than 8192 of them where that can be."""
        width = n_latents / (GROUPS_PER_ENTRY * max(1.0, wanted))
        width = max(8, 2 ** math.floor(math.log2(max(width, n_latents / 8192, 1))))
        width = min(width, 1024)
        return cls(ceil_div(n_latents, width), width)

    @property
    def sizes(self) -> dict[str, Any]:
        """Constants of programs that look at some groups together."""
        in_tile = max(1, TILE // self.width)
        return {"WIDTH": self.width, "GROUPS": in_tile, "num_warps": n_warps(in_tile * self.width, 8)}


def _top_k_of_row(pre: Float[Tensor, "B L"], k: int, signed: bool) -> Codes:
    n_rows, n_latents = pre.shape
    cuts, (quotas, counts) = _new_keys(pre, n_rows), _new_counts(pre, 2)
    options = {"BITS": _bits(pre), "SIGNED": signed}
    if n_latents <= WHOLE:
        groups, listed, found = _Groups.of(n_latents, 1.0), None, cuts
        space = next(n for n in (256, 1024, WHOLE) if n >= n_latents)
    else:
        groups = _Groups.of(n_latents, float(k))
        bounds = _new_keys(pre, n_rows)
        listed = _list_groups(pre, groups, _group_maxima(pre, groups, signed), bounds, k)
        space = min(SPACE[1], max(SPACE[0], power_of_2(4 * k)))
        found = _new_keys(pre, n_rows, space)
        passes.collect[(n_rows,)](
            pre, *listed, bounds, found, counts, n_latents, groups.n, SPACE=space, SIGNED=signed, **groups.sizes
        )
    options |= {"SPACE": space, "WHOLE": listed is None, "num_warps": n_warps(space, 16)}
    passes.cut_rows[(n_rows,)](pre, found, counts, cuts, quotas, k, n_latents, **options)
    offsets = k * torch.arange(n_rows + 1, device=pre.device)
    return _written(pre, groups, listed, cuts, quotas, offsets, n_rows * k, signed)


def _top_k_of_batch(pre: Float[Tensor, "B L"], k: float) -> Codes:
    n_rows, n_latents = pre.shape
    wanted = min(int(n_rows * k), pre.numel())
    groups = _Groups.of(n_latents, k)
    maxima = _group_maxima(pre, groups, signed=False)
    bound = _bound_of_batch(pre, maxima, wanted)
    listed = _list_groups(pre, groups, maxima, bound)
    cut = _cut_of_batch(pre, groups, listed, bound, wanted)
    above, ties = _new_counts(pre, 2)
    passes.count_around[(n_rows,)](pre, *listed, cut, above, ties, n_latents, groups.n, **groups.sizes)
    above, ties = above.long(), ties.long()
    left = wanted - above.sum()
    in_order = (left - (ties.cumsum(0) - ties)).clamp(min=0).minimum(ties)
    spread = F.pad(ties.cumsum(0) * left // ties.sum().clamp(min=1), (1, 0)).diff()
    quotas = torch.where(cut > 0, in_order, spread)
    offsets = F.pad((above + quotas).cumsum(0), (1, 0))
    return _written(pre, groups, listed, cut.expand(n_rows).contiguous(), quotas, offsets, wanted, signed=False)


def _group_maxima(pre: Float[Tensor, "B L"], groups: _Groups, signed: bool) -> Int[Tensor, "B G"]:
    maxima = _new_keys(pre, pre.shape[0], groups.n)
    grid = (pre.shape[0] * ceil_div(groups.n, groups.sizes["GROUPS"]),)
    passes.group_maxima[grid](pre, maxima, pre.shape[1], groups.n, SIGNED=signed, **groups.sizes | {"num_warps": 4})
    return maxima


def _list_groups(
    pre: Tensor, groups: _Groups, maxima: Int[Tensor, "B G"], bounds: Int[Tensor, " _"], k: int = 0
) -> Listed:
    listed = torch.empty(maxima.shape, dtype=torch.int32, device=pre.device), *_new_counts(pre, 1)
    every = power_of_2(groups.n)
    passes.list_groups[(len(maxima),)](
        maxima,
        bounds,
        *listed,
        k,
        groups.n,
        ALL_GROUPS=every,
        BITS=_bits(pre),
        OF_ROW=k > 0,
        num_warps=n_warps(every, 8),
    )
    return listed


def _bound_of_batch(pre: Tensor, maxima: Int[Tensor, "B G"], wanted: int) -> Int[Tensor, " 1"]:
    """A key that ``wanted`` groups reach, rounded down to its highest digit; 0 where fewer hold a positive number."""
    shift = max(0, _bits(pre) - _DIGIT)
    bins = _new_bins(pre, _bits(pre) - shift)
    passes.count_maxima[(ceil_div(maxima.numel(), 1024),)](maxima, bins, maxima.numel(), SHIFT=shift, BLOCK=1024)
    return _reached(bins, torch.full((1,), wanted, device=pre.device))[0].to(maxima.dtype) << shift


def _cut_of_batch(
    pre: Float[Tensor, "B L"], groups: _Groups, listed: Listed, bound: Int[Tensor, " 1"], wanted: int
) -> Int[Tensor, " 1"]:
    """The largest key that ``wanted`` keys of the matrix reach; 0 where fewer are positive."""
    rest = torch.full((1,), wanted, device=pre.device)
    cut, below = torch.zeros_like(bound), _bits(pre)
    while below > 0:
        digit = min(_DIGIT, below)
        below -= digit
        bins = _new_bins(pre, digit)
        passes.count_digits[(len(pre),)](
            pre, *listed, bound, cut, bins, pre.shape[1], groups.n, SHIFT=below, DIGIT=digit, **groups.sizes
        )
        found, rest = _reached(bins, rest)
        cut = (cut << digit) | found.to(cut.dtype)
    return cut


def _reached(bins: Int[Tensor, " n"], wanted: Int[Tensor, " 1"]) -> tuple[Int[Tensor, " 1"], Int[Tensor, " 1"]]:
    """The largest digit that, with those above it, is had by ``wanted`` keys, else 0; and how many are wanted of it."""
    upwards = bins.flip(0).cumsum(0)
    place = torch.searchsorted(upwards, wanted).clamp(max=len(bins) - 1)
    digit = len(bins) - 1 - place
    return digit, wanted - (upwards[place] - bins[digit])


def _written(
    pre: Float[Tensor, "B L"],
    groups: _Groups,
    listed: Listed | None,
    cuts: Int[Tensor, " B"],
    quotas: Int[Tensor, " B"],
    offsets: Int[Tensor, " B_plus_1"],
    n_entries: int,
    signed: bool,
) -> Codes:
    values = pre.new_empty(n_entries)
    ids = torch.empty(n_entries, dtype=torch.int64, device=pre.device)
    lists = (quotas, quotas) if listed is None else listed
    options = {"LISTED": listed is not None, "SIGNED": signed, **groups.sizes}
    passes.write[(len(pre),)](pre, *lists, cuts, quotas, offsets, values, ids, pre.shape[1], groups.n, **options)
    return Codes(values, ids, offsets, pre.shape[1])


def _above(pre: Float[Tensor, "B L"], threshold: Tensor | float) -> Codes:
    n_rows, n_latents = pre.shape
    if not isinstance(threshold, Tensor):
        threshold = torch.full((), threshold, device=pre.device)
    # one number is rounded to the matrix's type, as in a comparison by torch
    thresholds = threshold.contiguous() if threshold.ndim else threshold.to(pre.dtype)
    counts = torch.empty(n_rows, dtype=torch.int32, device=pre.device)
    sizes = {"TILE": TILE, "NUMBER": sum_type(pre), "num_warps": n_warps(TILE, 8)}
    stride = int(thresholds.numel() > 1)
    passes.count_above[(n_rows,)](pre, thresholds, stride, counts, n_latents, **sizes)
    offsets = F.pad(counts.cumsum(0), (1, 0))
    n_entries = int(offsets[-1])  # the one wait for the device
    values = pre.new_empty(n_entries)
    ids = torch.empty(n_entries, dtype=torch.int64, device=pre.device)
    passes.write_above[(n_rows,)](pre, thresholds, stride, offsets, values, ids, n_latents, **sizes)
    return Codes(values, ids, offsets, n_latents)


def _group_max(pre: Float[Tensor, "B L"], n_groups: int) -> Codes:
    n_rows, n_latents = pre.shape
    width = n_latents // n_groups
    block = min(1024, power_of_2(width))
    in_tile = min(power_of_2(n_groups), max(1, TILE // block))
    values = pre.new_empty(n_rows * n_groups)
    ids = torch.empty(n_rows * n_groups, dtype=torch.int64, device=pre.device)
    grid = (n_rows * ceil_div(n_groups, in_tile),)
    warps = n_warps(block * in_tile, 16)
    passes.largest_of_groups[grid](
        pre, values, ids, n_latents, n_groups, width, WIDTH=block, GROUPS=in_tile, num_warps=warps
    )
    return Codes(values, ids, n_groups * torch.arange(n_rows + 1, device=pre.device), n_latents)


def _bits(pre: Tensor) -> int:
    """Bits of the largest key."""
    return {torch.float64: 63, torch.bfloat16: 15}.get(pre.dtype, 31)


def _new_keys(pre: Tensor, *shape: int) -> Int[Tensor, "..."]:
    return torch.empty(shape, dtype=torch.int64 if pre.dtype == torch.float64 else torch.int32, device=pre.device)


def _new_counts(pre: Float[Tensor, "B L"], n: int) -> tuple[Int[Tensor, " B"], ...]:
    """So many numbers for each row, not set."""
    return tuple(torch.empty(len(pre), dtype=torch.int32, device=pre.device) for _ in range(n))


def _new_bins(pre: Tensor, bits: int) -> Int[Tensor, " n"]:
    return torch.zeros(2**bits, dtype=torch.int32, device=pre.device)
