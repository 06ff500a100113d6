"""An Adam step on rows for GPUs, in Triton: projection, update and renormalisation while a row is in registers.

Each number is read and written once. Sums and updates are made in float32 (float64 for float64), whatever types the
weights, gradients and moments have. The scale stays on the device: where it is not finite, everything is masked.
Rows longer than ``LONGEST`` are updated in blocks and renormalised by a second pass. Where rows may be left alone, a
pass before reads the gradients and says by which factor a row's second moment decays, or -1 for rows without gradient.
"""

import math
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from unweave.kernels.programs import block_of, ceil_div, n_warps, power_of_2, program, sum_type, wide

LONGEST = 8192
"""Width up to which a program holds a whole row."""
_NORM = {"free": math.inf, "at_most_one": 1.0, "unit": 0.0}


def radial_parts(gradient: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """See the reference; the parts have the type of sums."""
    n, width = weights.shape
    squares, along = (torch.empty(n, dtype=wide(weights), device=weights.device) for _ in range(2))
    block = block_of(width, 1024)
    _radial_parts[(n,)](
        gradient.contiguous(),
        weights.contiguous(),
        squares,
        along,
        width,
        BLOCK=block,
        SUM=sum_type(weights),
        num_warps=n_warps(block, 8),
    )
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
    """See the reference. Numbers of the step are rounded to float32."""
    missed: Tensor | None = options["missed"]
    changed = [tensor for tensor in (weights, mean, square, missed) if tensor is not None]
    assert all(tensor.is_contiguous() for tensor in changed)
    gradient = gradient.contiguous()
    (beta1, beta2), step, norm = options["betas"], options["step"], options["norm"]
    n, width = weights.shape
    keeps_whole = norm != "free" and width <= LONGEST
    block = power_of_2(width) if keeps_whole else block_of(width, 1024)
    decays = None if missed is None else _decays(gradient, missed, scale, beta2, weights)
    _adam[(n, ceil_div(width, block))](
        weights,
        gradient,
        square if mean is None else mean,
        square,
        scale,
        weights if along is None else along,
        weights if decays is None else decays,
        width,
        beta1,
        1 - beta1,
        beta2,
        1 - beta2,
        options["lr"] / (1 - beta1**step),
        1 / (1 - beta2**step),
        options["eps"],
        _NORM[norm],
        REMEMBERS=mean is not None,
        SKIPS=decays is not None,
        PROJECTS=along is not None,
        NORMALISES=keeps_whole,
        BLOCK=block,
        SUM=sum_type(weights),
        num_warps=n_warps(block, 8),
    )
    if norm != "free" and not keeps_whole:
        _renormalise[(n,)](
            weights,
            scale,
            weights if decays is None else decays,
            width,
            _NORM[norm],
            SKIPS=decays is not None,
            BLOCK=1024,
            SUM=sum_type(weights),
            num_warps=4,
        )


def _decays(gradient: Tensor, missed: Tensor, scale: Tensor, beta2: float, weights: Tensor) -> Tensor:
    """By what the second moment of each row with a gradient is multiplied, -1 for the others; counts the step."""
    n, width = gradient.shape
    decays = torch.empty(n, dtype=wide(weights), device=weights.device)
    block = block_of(width, 1024)
    log = math.log2(beta2) if beta2 > 0 else 0.0
    _count[(n,)](
        gradient,
        missed,
        decays,
        scale,
        width,
        beta2,
        log,
        BLOCK=block,
        SUM=sum_type(weights),
        num_warps=n_warps(block, 8),
    )
    return decays


@program
def _radial_parts(  # type: ignore[no-untyped-def]
    gradient, weights, squares, along, width, BLOCK: tl.constexpr, SUM: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    g_g = tl.zeros((BLOCK,), SUM)
    g_w = tl.zeros((BLOCK,), SUM)
    w_w = tl.zeros((BLOCK,), SUM)
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        g = tl.load(gradient + row * width + column, mask=column < width, other=0.0).to(SUM)
        w = tl.load(weights + row * width + column, mask=column < width, other=0.0).to(SUM)
        g_g += g * g
        g_w += g * w
        w_w += w * w
    inner = tl.sum(g_w, 0)
    part = inner / tl.maximum(tl.sum(w_w, 0), 1e-30)
    tl.store(along + row, part)
    tl.store(squares + row, tl.maximum(tl.sum(g_g, 0) - inner * part, 0.0))


@program
def _count(  # type: ignore[no-untyped-def]
    gradient, missed, decays, scale, width, beta2, log, BLOCK: tl.constexpr, SUM: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    n_touched = tl.zeros((BLOCK,), tl.int32)
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        g = tl.load(gradient + row * width + column, mask=column < width, other=0.0)
        n_touched += (g != 0).to(tl.int32)
    is_touched = tl.sum(n_touched, 0) > 0
    steps = tl.load(missed + row)
    decay = beta2 * tl.exp2(steps.to(SUM) * log)
    tl.store(decays + row, tl.where(is_touched, decay, -1.0))
    is_finite = tl.abs(tl.load(scale).to(SUM)) < float("inf")
    tl.store(missed + row, tl.where(is_touched, 0, steps + 1), mask=is_finite)


@program
def _adam(  # type: ignore[no-untyped-def]
    weights,
    gradient,
    mean,
    square,
    scale,
    along,
    decays,
    width,
    beta1,
    fresh1,
    beta2,
    fresh2,
    rate,
    unbias,
    eps,
    longest,
    REMEMBERS: tl.constexpr,
    SKIPS: tl.constexpr,
    PROJECTS: tl.constexpr,
    NORMALISES: tl.constexpr,
    BLOCK: tl.constexpr,
    SUM: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    place = row * width + column
    factor = tl.load(scale).to(SUM)
    end = tl.where(tl.abs(factor) < float("inf"), width, 0)
    decay = beta2
    if SKIPS:
        decay = tl.load(decays + row)
        end = tl.where(decay < 0, 0, end)
    inside = column < end
    w = tl.load(weights + place, mask=inside, other=0.0).to(SUM)
    g = tl.load(gradient + place, mask=inside, other=0.0).to(SUM)
    v = tl.load(square + place, mask=inside, other=0.0).to(SUM)
    if PROJECTS:
        g -= tl.load(along + row).to(SUM) * w
    g *= factor
    m = g
    if REMEMBERS:
        m = tl.load(mean + place, mask=inside, other=0.0).to(SUM)
        m += fresh1 * (g - m)
        tl.store(mean + place, m, mask=inside)
    v = decay * v + fresh2 * g * g
    w -= rate * m / (tl.sqrt(v * unbias) + eps)
    if NORMALISES:
        length = tl.maximum(tl.sqrt(tl.sum(w * w, 0)), 1e-12)
        w *= tl.where(length > longest, 1 / length, 1.0)
    tl.store(weights + place, w, mask=inside)
    tl.store(square + place, v, mask=inside)


@program
def _renormalise(  # type: ignore[no-untyped-def]
    weights, scale, decays, width, longest, SKIPS: tl.constexpr, BLOCK: tl.constexpr, SUM: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    total = tl.zeros((BLOCK,), SUM)
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        w = tl.load(weights + row * width + column, mask=column < width, other=0.0).to(SUM)
        total += w * w
    length = tl.maximum(tl.sqrt(tl.sum(total, 0)), 1e-12)
    changes = (length > longest) & (tl.abs(tl.load(scale).to(SUM)) < float("inf"))
    if SKIPS:
        changes = changes & (tl.load(decays + row) >= 0)
    end = tl.where(changes, width, 0)
    for first in range(0, end, BLOCK):
        column = first + tl.arange(0, BLOCK)
        w = tl.load(weights + row * width + column, mask=column < end, other=0.0).to(SUM)
        tl.store(weights + row * width + column, w / length, mask=column < end)
