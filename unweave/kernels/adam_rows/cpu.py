"""An Adam step on rows for CPUs, compiled: a row is in the cache from its gradient to its new norm."""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from unweave.kernels.compiled import array, dot, loop, parallel

_LONGEST = {"free": np.inf, "at_most_one": 1.0, "unit": 0.0}


def radial_parts(gradient: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """See the reference."""
    squares, along = gradient.new_empty(len(gradient)), gradient.new_empty(len(gradient))
    _radial_parts(array(gradient), array(weights), array(squares), array(along))
    return squares, along


def adam_rows(
    weights: Tensor,
    gradient: Tensor,
    mean: Tensor | None,
    square: Tensor,
    scale: Tensor,
    along: Tensor | None,
    **options: Any,
) -> None:
    """See the reference."""
    if not bool(scale.isfinite()):
        return
    missed: Tensor | None = options["missed"]
    changed = [tensor for tensor in (weights, mean, square, missed) if tensor is not None]
    assert all(tensor.is_contiguous() for tensor in changed)
    number = array(weights).dtype.type
    (beta1, beta2), step = options["betas"], options["step"]
    corrections = options["lr"] / (1 - beta1**step), 1 / (1 - beta2**step)
    after = *corrections, options["eps"], _LONGEST[options["norm"]]
    parts = gradient.new_zeros(len(gradient)) if along is None else along
    if mean is not None:
        numbers = map(number, (scale.item(), beta1, beta2, *after))
        _adam_rows(*map(array, (weights, gradient, mean, square, parts)), *numbers)
        return
    steps = torch.zeros(len(weights), dtype=torch.int32) if missed is None else missed
    numbers = map(number, (scale.item(), *after))
    _square_rows(*map(array, (weights, gradient, square, steps, parts)), missed is not None, beta2, *numbers)


@parallel
def _radial_parts(gradient, weights, squares, along):  # type: ignore[no-untyped-def]
    for i in numba.prange(gradient.shape[0]):
        g, w = gradient[i], weights[i]
        inner, length = dot(g, w), max(dot(w, w), squares.dtype.type(1e-30))
        along[i] = inner / length
        squares[i] = max(dot(g, g) - inner * inner / length, squares.dtype.type(0))


@parallel
def _adam_rows(weights, gradient, mean, square, along, scale, beta1, beta2, rate, unbias, eps, longest):  # type: ignore[no-untyped-def]
    for i in numba.prange(weights.shape[0]):
        w = weights[i]
        _adam(w, gradient[i], mean[i], square[i], along[i], scale, beta1, beta2, rate, unbias, eps)
        _shorten(w, longest)


@parallel
def _square_rows(weights, gradient, square, missed, along, skips, beta2, scale, rate, unbias, eps, longest):  # type: ignore[no-untyped-def]
    number = weights.dtype.type
    for i in numba.prange(weights.shape[0]):
        w, g = weights[i], gradient[i]
        if skips and not _is_touched(g):
            missed[i] += 1
        else:
            decay, fresh = number(beta2 ** float(missed[i] + 1)), number(1 - beta2)
            missed[i] = 0
            _adam_of_square(w, g, square[i], along[i], scale, decay, fresh, rate, unbias, eps)
            _shorten(w, longest)


@loop
def _is_touched(g):  # type: ignore[no-untyped-def]
    if g[0] != 0:
        return True
    total = abs(g[0])  # not of squares, which may underflow
    for d in range(1, g.shape[0]):
        total += abs(g[d])
    return total != 0


@loop
def _shorten(w, longest):  # type: ignore[no-untyped-def]
    if longest < np.inf:
        length = max(np.sqrt(dot(w, w)), w.dtype.type(1e-12))
        if length > longest:
            factor = 1 / length
            for d in range(w.shape[0]):
                w[d] *= factor


@loop
def _adam(w, g, m, v, along, scale, beta1, beta2, rate, unbias, eps):  # type: ignore[no-untyped-def]
    for d in range(w.shape[0]):
        used = (g[d] - along * w[d]) * scale
        m[d] += (1 - beta1) * (used - m[d])
        v[d] = beta2 * v[d] + (1 - beta2) * used * used
        w[d] -= rate * m[d] / (np.sqrt(v[d] * unbias) + eps)


@loop
def _adam_of_square(w, g, v, along, scale, decay, fresh, rate, unbias, eps):  # type: ignore[no-untyped-def]
    for d in range(w.shape[0]):
        used = (g[d] - along * w[d]) * scale
        v[d] = decay * v[d] + fresh * used * used
        w[d] -= rate * used / (np.sqrt(v[d] * unbias) + eps)
