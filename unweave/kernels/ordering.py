"""Compiled order statistics and orders of one array.

NumPy's own take seconds to compile, ``np.partition`` nine and each kind of ``np.argsort`` three, for which every new
machine would have to wait.
"""

import numpy as np

from unweave.kernels.compiled import loop


@loop
def nth_largest(values, n):  # type: ignore[no-untyped-def]
    """The n-th largest value, counted from 1; reorders ``values`` (Hoare 1961, Find)."""
    low, high, at = 0, values.shape[0] - 1, values.shape[0] - n
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while pivot < values[j]:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if at <= j:
            high = j
        elif at >= i:
            low = i
        else:
            break
    return values[at]


@loop
def falling(values):  # type: ignore[no-untyped-def]
    """Where the values are, largest first; equal ones stay in order (merge sort, from runs of 16 that are inserted)."""
    n = values.shape[0]
    order, other = np.empty(n, np.int64), np.empty(n, np.int64)
    for start in range(0, n, 16):
        for k in range(start, min(start + 16, n)):
            m = k
            while m > start and values[order[m - 1]] < values[k]:
                order[m] = order[m - 1]
                m -= 1
            order[m] = k
    width = 16
    while width < n:
        for start in range(0, n, 2 * width):
            left, middle, end = start, min(start + width, n), min(start + 2 * width, n)
            right = middle
            for k in range(start, end):
                if right == end or (left < middle and values[order[left]] >= values[order[right]]):
                    other[k] = order[left]
                    left += 1
                else:
                    other[k] = order[right]
                    right += 1
        order, other = other, order
        width *= 2
    return order
