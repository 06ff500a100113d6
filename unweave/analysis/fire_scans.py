"""Compiled scans over the fires of many latents, a latent to each turn of a parallel loop."""

import numba
import numpy as np

from unweave.kernels.compiled import loop, parallel
from unweave.kernels.ordering import falling


@parallel
def falling_order(values, offsets):  # type: ignore[no-untyped-def]
    """Where the fires of each latent are, strongest first; equal ones stay in order."""
    order = np.empty(len(values), dtype=np.int64)
    for i in numba.prange(len(offsets) - 1):
        start, end = offsets[i], offsets[i + 1]
        order[start:end] = start + falling(values[start:end])
    return order


@parallel
def strongest(order, places, offsets, documents, context, n):  # type: ignore[no-untyped-def]
    """The places of the strongest fires, strongest first, each of another document; -1 where there are no more.

    ``order`` is the fires' ``falling_order``. Where there are fewer documents than wanted, other sequences of the same
    documents follow, and all are put in order.
    """
    chosen = np.full((len(offsets) - 1, n), -1, dtype=np.int64)
    for i in numba.prange(len(offsets) - 1):
        _take_strongest(order[offsets[i] : offsets[i + 1]], places, documents, context, chosen[i])
    return chosen


@loop
def _take_strongest(order, places, documents, context, chosen):  # type: ignore[no-untyped-def]
    taken = np.empty(len(chosen), dtype=np.int64)
    n_taken = 0
    for kind in range(2):
        for rank in range(len(order)):
            if n_taken == len(chosen):
                break
            place = places[order[rank]]
            is_new = True
            for m in range(n_taken):
                other = places[order[taken[m]]]
                if kind == 0 and documents[other] == documents[place]:
                    is_new = False
                if kind == 1 and other // context == place // context:
                    is_new = False
            if is_new:
                taken[n_taken] = rank
                n_taken += 1
    for m, rank in enumerate(np.sort(taken[:n_taken])):
        chosen[m] = places[order[rank]]


@parallel
def drawn_by_rank(order, places, offsets, first, n_groups, n, seed):  # type: ignore[no-untyped-def]
    """From each of ``n_groups`` equal shares of the fires, strongest share first, ``n`` drawn places; -1 where fewer.

    ``order`` is the fires' ``falling_order``. A fire is drawn by a hash of seed, latent and place, so that it does not
    matter in which batch it came.
    """
    chosen = np.full((len(offsets) - 1, n_groups, n), -1, dtype=np.int64)
    for i in numba.prange(len(offsets) - 1):
        _draw(order[offsets[i] : offsets[i + 1]], places, first + i, seed, chosen[i])
    return chosen


@loop
def _draw(order, places, latent, seed, chosen):  # type: ignore[no-untyped-def]
    n_groups, n = chosen.shape
    for group in range(n_groups):
        low, high = group * len(order) // n_groups, (group + 1) * len(order) // n_groups
        keys = np.empty(high - low, dtype=np.uint64)
        for k in range(low, high):
            keys[k - low] = ~_mixed(seed, latent, places[order[k]])
        for m, drawn in enumerate(np.sort(falling(keys)[:n])):  # within a group, the strongest first
            chosen[group, m] = places[order[low + drawn]]


@loop
def _mixed(seed, latent, place):  # type: ignore[no-untyped-def]
    """SplitMix64's finaliser (Steele, Lea and Flood 2014) of the three numbers."""
    z = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(latent) * np.uint64(0xD1B54A32D192ED03)
    z = (z + np.uint64(place) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@parallel
def partners(places, offsets, first, row_offsets, row_latents, counts, n, min_count):  # type: ignore[no-untyped-def]
    """For each latent from ``first`` on the ``n`` others with the largest Jaccard index of the places of both.

    Place p has the latents ``row_latents[row_offsets[p]:row_offsets[p + 1]]``; ``counts`` are the fires of all latents.
    Returns ids (-1: no more) and how many places both share, which are ``min_count`` at least.
    """
    n_latents = len(counts)
    ids = np.full((len(offsets) - 1, n), -1, dtype=np.int64)
    both = np.zeros((len(offsets) - 1, n), dtype=np.int64)
    for i in numba.prange(len(offsets) - 1):
        together = np.zeros(n_latents, dtype=np.int64)
        for e in range(offsets[i], offsets[i + 1]):
            place = places[e]
            for k in range(row_offsets[place], row_offsets[place + 1]):
                together[row_latents[k]] += 1
        own = offsets[i + 1] - offsets[i]
        best = np.zeros(n, dtype=np.float64)
        for other in range(n_latents):
            count = together[other]
            if count < min_count or other == first + i:
                continue
            jaccard = count / (own + counts[other] - count)
            if jaccard <= best[n - 1]:
                continue
            m = n - 1
            while m > 0 and best[m - 1] < jaccard:
                best[m], ids[i, m], both[i, m] = best[m - 1], ids[i, m - 1], both[i, m - 1]
                m -= 1
            best[m], ids[i, m], both[i, m] = jaccard, other, count
    return ids, both
