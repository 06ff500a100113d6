"""Compiled scans of a block of products that may be rounded: candidates by their bounds, then exact scores.

An element of the block is ``q``, known to lie within ``slack[b] * size[l] + rounding * |q|`` of the exact product
``x[b] . W[l]``; the pre-activation adds ``bias[l]``, given with a little room as ``low[l] <= bias[l] <= high[l]``. A
rule is first applied to bounds: whatever it could keep is a candidate. Only candidates are multiplied exactly, unless
the block ``is_exact`` already, and the rule is applied again to those few. So the result is that of exact products.

Each row's entries go to ``ids`` and ``values`` [rows, L], their number to ``counts``. Loops run over slices, because
only then does the compiler know that no index is negative and can use vector instructions.
"""

import numba
import numpy as np

from unweave.kernels.compiled import dot, loop, number, parallel
from unweave.kernels.ordering import nth_largest


@parallel
def top_k(q, low, high, tiny, bias, size, slack, rounding, is_exact, x, W, k, signed, ids, values, counts):  # type: ignore[no-untyped-def]
    """The k largest positive entries of each row, or the k largest magnitudes; ``tiny`` is the least number above 0."""
    for b in numba.prange(q.shape[0]):
        counts[b] = _top_k_of_row(
            q[b], low, high, tiny, bias, size, slack[b], rounding, is_exact, x[b], W, k, signed, ids[b], values[b]
        )


@parallel
def above(q, high, threshold, bias, size, slack, rounding, is_exact, x, W, ids, values, counts):  # type: ignore[no-untyped-def]
    """Entries above each latent's threshold; ``high`` is an upper bound of ``bias - threshold``."""
    zero = values.dtype.type(0)
    for b in numba.prange(q.shape[0]):
        found = _candidates(q[b], high, high, size, slack[b], rounding, False, zero, ids[b])
        _score(q[b], bias, is_exact, x[b], W, ids[b], values[b], found)
        kept = 0
        for e in range(found):
            if values[b, e] > threshold[ids[b, e]]:
                ids[b, kept] = ids[b, e]
                values[b, kept] = values[b, e]
                kept += 1
        counts[b] = kept


@parallel
def group_max(q, low, high, tiny, bias, size, slack, rounding, is_exact, x, W, n_groups, ids, values, counts):  # type: ignore[no-untyped-def]
    """The largest entry of each of ``n_groups`` runs of latents, where it is positive."""
    width = q.shape[1] // n_groups
    for b in numba.prange(q.shape[0]):
        kept = 0
        lane = np.empty(1, values.dtype)
        found_ids = np.empty(width, ids.dtype)
        found_values = np.empty(width, values.dtype)
        for g in range(n_groups):
            start, end = g * width, (g + 1) * width
            row, lo, hi, sz = q[b, start:end], low[start:end], high[start:end], size[start:end]
            lane[0] = -np.inf
            for i in range(width):
                bound = number(row[i]) + lo[i] - slack[b] * sz[i] - rounding * abs(number(row[i]))
                lane[0] = bound if bound > lane[0] else lane[0]
            found = _candidates(row, lo, hi, sz, slack[b], rounding, False, max(lane[0], tiny), found_ids)
            _score(row, bias[start:end], is_exact, x[b], W[start:end], found_ids, found_values, found)
            best = 0
            for e in range(1, found):
                best = e if found_values[e] > found_values[best] else best
            if found > 0 and found_values[best] > 0:
                ids[b, kept] = start + found_ids[best]
                values[b, kept] = found_values[best]
                kept += 1
        counts[b] = kept


@parallel
def compact(ids, values, offsets, all_ids, all_values, all_rows, first_row):  # type: ignore[no-untyped-def]
    """Append the rows of a block to the arrays of all entries; row b of the block begins at ``offsets[b]``."""
    for b in numba.prange(ids.shape[0]):
        start, n = offsets[b], offsets[b + 1] - offsets[b]
        all_values[start : start + n] = values[b, :n]
        all_rows[start : start + n] = first_row + b
        for e in range(n):
            all_ids[start + e] = ids[b, e]


@loop
def _top_k_of_row(row, low, high, tiny, bias, size, slack, rounding, is_exact, x, W, k, signed, ids, values):  # type: ignore[no-untyped-def]
    lanes = np.empty(min(row.shape[0], max(256, 8 * k)), values.dtype)
    _lower_bounds(row, low, high, size, slack, rounding, signed, lanes)
    # at least k entries reach the k-th largest lane, so whatever stays below it is not among the k largest
    reached = nth_largest(lanes, k)
    found = _candidates(row, low, high, size, slack, rounding, signed, max(reached, tiny), ids)
    _score(row, bias, is_exact, x, W, ids, values, found)
    return _keep_largest(ids, values, found, k, signed)


@loop
def _lower_bounds(row, low, high, size, slack, rounding, signed, lanes):  # type: ignore[no-untyped-def]
    """Into each lane the largest lower bound of the score among every ``len(lanes)``-th element."""
    n = lanes.shape[0]
    lanes[:] = -np.inf
    for start in range(0, row.shape[0], n):
        q, lo, hi, sz = row[start : start + n], low[start : start + n], high[start : start + n], size[start : start + n]
        for i in range(q.shape[0]):
            value = number(q[i])
            score = value + lo[i]
            score = -(value + hi[i]) if signed and -(value + hi[i]) > score else score
            bound = score - slack * sz[i] - rounding * abs(value)
            lanes[i] = bound if bound > lanes[i] else lanes[i]


@loop
def _candidates(row, low, high, size, slack, rounding, signed, cut, ids):  # type: ignore[no-untyped-def]
    """Ids of the elements whose upper bound of the score reaches the cut; returns how many."""
    found = 0
    for start in range(0, row.shape[0], 64):
        q, lo, hi = row[start : start + 64], low[start : start + 64], high[start : start + 64]
        sz = size[start : start + 64]
        hits = np.int32(0)
        for i in range(q.shape[0]):
            hits += np.int32(_upper(number(q[i]), lo[i], hi[i], sz[i], slack, rounding, signed) >= cut)
        if hits > 0:
            for i in range(q.shape[0]):
                if _upper(number(q[i]), lo[i], hi[i], sz[i], slack, rounding, signed) >= cut:
                    ids[found] = start + i
                    found += 1
    return found


@loop
def _upper(value, low, high, size, slack, rounding, signed):  # type: ignore[no-untyped-def]
    score = value + high
    score = -(value + low) if signed and -(value + low) > score else score
    return score + slack * size + rounding * abs(value)


@loop
def _score(row, bias, is_exact, x, W, ids, values, found):  # type: ignore[no-untyped-def]
    """Exact pre-activations of the candidates."""
    for e in range(found):
        latent = ids[e]
        product = values.dtype.type(number(row[latent])) if is_exact else dot(x, W[latent])
        values[e] = product + bias[latent]


@loop
def _keep_largest(ids, values, found, k, signed):  # type: ignore[no-untyped-def]
    """Move the k largest positive scores to the front, in the order of their ids; ties go to the lower id."""
    scores = np.empty(found, values.dtype)
    for e in range(found):
        scores[e] = abs(values[e]) if signed else values[e]
    least, ties = values.dtype.type(0), 0
    if found > k:
        least = nth_largest(scores.copy(), k)
        ties = k
        for e in range(found):
            ties -= scores[e] > least
    kept = 0
    for e in range(found):
        is_tie = scores[e] == least and ties > 0
        if scores[e] > 0 and (scores[e] > least or is_tie):
            ties -= is_tie
            ids[kept] = ids[e]
            values[kept] = values[e]
            kept += 1
    return kept
