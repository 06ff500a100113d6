"""Passes over a matrix of pre-activations, in Triton, of which selections for GPUs are made.

A *key* is the bits of a positive number as an integer, which has the same order; what is not positive has the key 0. A
row is cut into *groups* of ``WIDTH`` neighbours. The first pass finds the largest key of each group, the second lists
the groups that can matter, and later ones read only those, GROUPS at a time. Offsets are 64-bit, since B * L may exceed
2**31. Names in capitals are constants for which a program is compiled.
"""

import triton.language as tl

from unweave.kernels.programs import program


@program
def key_of(value, SIGNED: tl.constexpr):  # type: ignore[no-untyped-def]
    """The key of a number, or of its magnitude; 16 bits of a bfloat16, 32 of a float32, 64 of a float64."""
    if value.dtype == tl.float64:
        number = tl.abs(value) if SIGNED else value
        bits = number.to(tl.int64, bitcast=True)
    else:
        number = tl.abs(value.to(tl.float32)) if SIGNED else value.to(tl.float32)
        bits = number.to(tl.int32, bitcast=True)
    if value.dtype == tl.bfloat16:
        bits = bits >> 16
    return tl.where(number > 0, bits, 0)


@program
def tile_of(  # type: ignore[no-untyped-def]
    pre,
    lists,
    row,
    first,
    n_listed,
    n_latents,
    n_groups,
    WIDTH: tl.constexpr,
    GROUPS: tl.constexpr,
    LISTED: tl.constexpr,
):
    """Latents and values of GROUPS groups from the row's list, or of all; latents from ``n_latents`` on are none."""
    place = first + tl.arange(0, GROUPS)
    group = place
    if LISTED:
        group = tl.load(lists + row * n_groups + place, mask=place < n_listed, other=n_groups)
    latent = group[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    value = tl.load(pre + row * n_latents + latent, mask=latent < n_latents, other=0.0)
    return tl.reshape(latent, (GROUPS * WIDTH,)), tl.reshape(value, (GROUPS * WIDTH,))


@program
def kth_largest(keys, k, BITS: tl.constexpr):  # type: ignore[no-untyped-def]
    """The k-th largest of a block of keys, bit by bit from the highest; 0 where fewer than k are positive."""
    cut = tl.full((), 0, keys.dtype)
    one = tl.full((), 1, keys.dtype)
    for i in range(BITS):
        trial = cut | (one << (BITS - 1 - i))
        cut = tl.where(tl.sum((keys >= trial).to(tl.int32), 0) >= k, trial, cut)
    return cut


@program
def group_maxima(  # type: ignore[no-untyped-def]
    pre, maxima, n_latents, n_groups, WIDTH: tl.constexpr, GROUPS: tl.constexpr, SIGNED: tl.constexpr
):
    """The largest key of each group; one program for GROUPS groups of a row."""
    n_tiles = tl.cdiv(n_groups, GROUPS)
    row = (tl.program_id(0) // n_tiles).to(tl.int64)
    group = tl.program_id(0) % n_tiles * GROUPS + tl.arange(0, GROUPS)
    latent = group[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    value = tl.load(pre + row * n_latents + latent, mask=latent < n_latents, other=0.0)
    tl.store(maxima + row * n_groups + group, tl.max(key_of(value, SIGNED), 1), mask=group < n_groups)


@program
def list_groups(  # type: ignore[no-untyped-def]
    maxima,
    bounds,
    lists,
    n_listed,
    k,
    n_groups,
    ALL_GROUPS: tl.constexpr,
    BITS: tl.constexpr,
    OF_ROW: tl.constexpr,
):
    """Groups of a row whose largest key reaches a bound. OF_ROW: the bound is found, else there is one for all rows.

    A row's bound is the k-th largest of its group maxima. k groups hold a key that large, so at least k keys reach it,
    and none of the k largest lies elsewhere. Where it is 0, all groups are listed.
    """
    row = tl.program_id(0).to(tl.int64)
    group = tl.arange(0, ALL_GROUPS)
    largest = tl.load(maxima + row * n_groups + group, mask=group < n_groups, other=0)
    if OF_ROW:
        bound = kth_largest(largest, k, BITS)
        tl.store(bounds + row, bound)
    else:
        bound = tl.load(bounds)
    listed = ((largest >= bound) & (group < n_groups)).to(tl.int32)
    place = tl.cumsum(listed, 0) - listed
    tl.store(lists + row * n_groups + place, group, mask=listed > 0)
    tl.store(n_listed + row, tl.sum(listed, 0))


@program
def collect(  # type: ignore[no-untyped-def]
    pre,
    lists,
    n_listed,
    bounds,
    found,
    counts,
    n_latents,
    n_groups,
    SPACE: tl.constexpr,
    SIGNED: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """The positive keys of a row that reach its bound, SPACE at most, and how many there are."""
    row = tl.program_id(0).to(tl.int64)
    n = tl.load(n_listed + row)
    least = tl.maximum(tl.load(bounds + row), 1)
    count = 0
    for first in range(0, n, GROUPS):
        _, value = tile_of(pre, lists, row, first, n, n_latents, n_groups, WIDTH, GROUPS, True)
        keys = key_of(value, SIGNED)
        hit = (keys >= least).to(tl.int32)
        place = count + tl.cumsum(hit, 0) - hit
        tl.store(found + row * SPACE + place, keys, mask=(hit > 0) & (place < SPACE))
        count += tl.sum(hit, 0)
    tl.store(counts + row, count)


@program
def cut_rows(  # type: ignore[no-untyped-def]
    pre,
    found,
    counts,
    cuts,
    quotas,
    k,
    n_latents,
    SPACE: tl.constexpr,
    BITS: tl.constexpr,
    SIGNED: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """The k-th largest key of each row, and how many of the entries that have it are among the k largest.

    WHOLE: a row fits into SPACE. Otherwise its collected keys are searched, and where those did not fit the row itself,
    once for every bit.
    """
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, SPACE)
    if WHOLE:
        keys = key_of(tl.load(pre + row * n_latents + place, mask=place < n_latents, other=0.0), SIGNED)
        cut = kth_largest(keys, k, BITS)
        above = tl.sum((keys > cut).to(tl.int32), 0)
    else:
        count = tl.load(counts + row)
        if count <= SPACE:
            keys = tl.load(found + row * SPACE + place, mask=place < count, other=0)
            cut = kth_largest(keys, k, BITS)
            above = tl.sum((keys > cut).to(tl.int32), 0)
        else:
            one = tl.full((), 1, found.dtype.element_ty)
            cut = one - 1
            for i in range(BITS):
                trial = cut | (one << (BITS - 1 - i))
                cut = tl.where(_count_reaching(pre, row, trial, n_latents, SPACE, SIGNED) >= k, trial, cut)
            above = _count_reaching(pre, row, cut + 1, n_latents, SPACE, SIGNED)
    tl.store(cuts + row, cut)
    tl.store(quotas + row, k - above)


@program
def _count_reaching(pre, row, cut, n_latents, TILE: tl.constexpr, SIGNED: tl.constexpr):  # type: ignore[no-untyped-def]
    """How many keys of a row are at least ``cut``."""
    count = 0
    for first in range(0, n_latents, TILE):
        latent = first + tl.arange(0, TILE)
        value = tl.load(pre + row * n_latents + latent, mask=latent < n_latents, other=0.0)
        count += tl.sum((key_of(value, SIGNED) >= cut).to(tl.int32), 0)
    return count


@program
def count_maxima(maxima, bins, n, SHIFT: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Histogram of the highest digit of positive group maxima."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    keys = tl.load(maxima + place, mask=place < n, other=0)
    tl.atomic_add(bins + (keys >> SHIFT), 1, mask=keys > 0, sem="relaxed")


@program
def count_digits(  # type: ignore[no-untyped-def]
    pre,
    lists,
    n_listed,
    bound,
    prefix,
    bins,
    n_latents,
    n_groups,
    SHIFT: tl.constexpr,
    DIGIT: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """Histogram of one digit of DIGIT bits of the keys that reach the bound and whose higher digits are the prefix.

    Whole numbers add up the same in any order, so the atomics leave no trace of it.
    """
    row = tl.program_id(0).to(tl.int64)
    n = tl.load(n_listed + row)
    least = tl.maximum(tl.load(bound), 1)
    higher = tl.load(prefix)
    for first in range(0, n, GROUPS):
        _, value = tile_of(pre, lists, row, first, n, n_latents, n_groups, WIDTH, GROUPS, True)
        keys = key_of(value, False)
        upper = keys >> SHIFT
        counted = (keys >= least) & ((upper >> DIGIT) == higher)
        tl.atomic_add(bins + (upper - (higher << DIGIT)), 1, mask=counted, sem="relaxed")


@program
def count_around(  # type: ignore[no-untyped-def]
    pre, lists, n_listed, cut, above, ties, n_latents, n_groups, WIDTH: tl.constexpr, GROUPS: tl.constexpr
):
    """How many keys of each row are larger than the cut, and how many equal to it."""
    row = tl.program_id(0).to(tl.int64)
    n = tl.load(n_listed + row)
    wanted = tl.load(cut)
    n_above = 0
    n_ties = 0
    for first in range(0, n, GROUPS):
        latent, value = tile_of(pre, lists, row, first, n, n_latents, n_groups, WIDTH, GROUPS, True)
        keys = key_of(value, False)
        n_above += tl.sum((keys > wanted).to(tl.int32), 0)
        n_ties += tl.sum(((keys == wanted) & (latent < n_latents)).to(tl.int32), 0)
    tl.store(above + row, n_above)
    tl.store(ties + row, n_ties)


@program
def write(  # type: ignore[no-untyped-def]
    pre,
    lists,
    n_listed,
    cuts,
    quotas,
    starts,
    values,
    ids,
    n_latents,
    n_groups,
    LISTED: tl.constexpr,
    SIGNED: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """Each row's entries above its cut, and the first of those equal to it, in the order of their latents.

    An entry that is not positive becomes an explicit 0.
    """
    row = tl.program_id(0).to(tl.int64)
    cut = tl.load(cuts + row)
    quota = tl.load(quotas + row).to(tl.int32)
    start = tl.load(starts + row)
    n = n_groups
    if LISTED:
        n = tl.load(n_listed + row)
    n_above = 0
    n_ties = 0
    for first in range(0, n, GROUPS):
        latent, value = tile_of(pre, lists, row, first, n, n_latents, n_groups, WIDTH, GROUPS, LISTED)
        keys = key_of(value, SIGNED)
        above = (keys > cut).to(tl.int32)
        tie = ((keys == cut) & (latent < n_latents)).to(tl.int32)
        both = above + (tie << 16)  # one scan for two counts
        before = tl.cumsum(both, 0) - both
        ties_before = n_ties + (before >> 16)
        place = n_above + (before & 0xFFFF) + tl.minimum(ties_before, quota)
        kept = (above > 0) | ((tie > 0) & (ties_before < quota))
        tl.store(values + start + place, tl.where(keys > 0, value, 0.0), mask=kept)
        tl.store(ids + start + place, latent, mask=kept)
        n_above += tl.sum(above, 0)
        n_ties += tl.sum(tie, 0)


@program
def count_above(pre, thresholds, stride, counts, n_latents, TILE: tl.constexpr, NUMBER: tl.constexpr):  # type: ignore[no-untyped-def]
    """How many entries of each row are above the threshold of their latent."""
    row = tl.program_id(0).to(tl.int64)
    count = 0
    for first in range(0, n_latents, TILE):
        latent = first + tl.arange(0, TILE)
        value = tl.load(pre + row * n_latents + latent, mask=latent < n_latents, other=0.0)
        threshold = tl.load(thresholds + latent * stride, mask=latent < n_latents, other=float("inf"))
        count += tl.sum((value.to(NUMBER) > threshold.to(NUMBER)).to(tl.int32), 0)
    tl.store(counts + row, count)


@program
def write_above(  # type: ignore[no-untyped-def]
    pre, thresholds, stride, starts, values, ids, n_latents, TILE: tl.constexpr, NUMBER: tl.constexpr
):
    """Those entries, in the order of their latents."""
    row = tl.program_id(0).to(tl.int64)
    start = tl.load(starts + row)
    count = 0
    for first in range(0, n_latents, TILE):
        latent = first + tl.arange(0, TILE)
        value = tl.load(pre + row * n_latents + latent, mask=latent < n_latents, other=0.0)
        threshold = tl.load(thresholds + latent * stride, mask=latent < n_latents, other=float("inf"))
        kept = (value.to(NUMBER) > threshold.to(NUMBER)).to(tl.int32)
        place = count + tl.cumsum(kept, 0) - kept
        tl.store(values + start + place, value, mask=kept > 0)
        tl.store(ids + start + place, latent, mask=kept > 0)
        count += tl.sum(kept, 0)


@program
def largest_of_groups(  # type: ignore[no-untyped-def]
    pre, values, ids, n_latents, n_groups, width, WIDTH: tl.constexpr, GROUPS: tl.constexpr
):
    """The first largest entry of each group of ``width`` latents, or its first latent with an explicit 0."""
    n_tiles = tl.cdiv(n_groups, GROUPS)
    row = (tl.program_id(0) // n_tiles).to(tl.int64)
    group = tl.program_id(0) % n_tiles * GROUPS + tl.arange(0, GROUPS)
    best = tl.zeros((GROUPS,), tl.int64)
    winner = group * width
    for first in range(0, width, WIDTH):
        place = first + tl.arange(0, WIDTH)
        latent = group[:, None] * width + place[None, :]
        inside = (group < n_groups)[:, None] & (place < width)[None, :]
        keys = key_of(tl.load(pre + row * n_latents + latent, mask=inside, other=0.0), False)
        largest = tl.max(keys, 1)
        at = tl.min(tl.where((keys == largest[:, None]) & inside, latent, n_latents), 1)
        winner = tl.where(largest > best, at, winner)
        best = tl.maximum(best, largest.to(tl.int64))
    value = tl.load(pre + row * n_latents + winner, mask=best > 0, other=0.0)
    tl.store(values + row * n_groups + group, value, mask=group < n_groups)
    tl.store(ids + row * n_groups + group, winner, mask=group < n_groups)
