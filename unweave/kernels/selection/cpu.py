"""A rule applied block by block on a CPU, to products that are exact or rounded, gathered into Codes."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unweave.kernels.compiled import array
from unweave.kernels.selection import largest, scan
from unweave.kernels.selection.rules import Above, GroupMax, Rule, TopKOfBatch, TopKOfRow
from unweave.types import Codes

FIRST = 64
"""Rows of the first block, which tells how dense the codes will be and where the threshold of a batch lies."""
TOO_DENSE = 0.03
"""Share of active entries from which multiplying candidates again costs more than rounded products save."""
_ROOM = 8
"""Units in the last place that adding a bias and taking a threshold away may cost."""


class Block(NamedTuple):
    """Products of some rows with all latents, each within ``slack[b] * size[l] + rounding * |q|`` of the exact one."""

    q: Float[Tensor, "b L"]
    slack: Float[Tensor, " b"]
    rounding: float
    is_exact: bool


@runtime_checkable
class Products(Protocol):
    """What gives products of rows ``x`` and latents ``W`` in blocks, the first of ``FIRST`` rows."""

    x: Tensor
    W: Tensor
    size: Tensor
    can_round: bool

    def blocks(self, *, is_exact: bool) -> Iterator[Block]: ...


class Matrix:
    """Products that are there already."""

    can_round = False

    def __init__(self, pre: Float[Tensor, "B L"]) -> None:
        self.pre = pre
        self.x, self.W = pre.new_zeros(pre.shape[0], 1), pre.new_zeros(pre.shape[1], 1)
        self.size = pre.new_zeros(pre.shape[1])

    def blocks(self, *, is_exact: bool) -> Iterator[Block]:
        assert is_exact
        yield from (Block(part, part.new_zeros(len(part)), 0.0, True) for part in self.pre.split(256))


def keep(products: Products, bias: Float[Tensor, " L"], rule: Rule) -> Codes:
    """Codes of ``products + bias`` at the entries that the rule keeps."""
    if isinstance(rule, TopKOfBatch):
        return _top_k_of_batch(products, bias, rule.k)
    if products.can_round:
        collector = _Collector(products, bias, rule)
        for i, block in enumerate(products.blocks(is_exact=False)):
            n_kept = collector.add(block)
            if i == 0 and n_kept > TOO_DENSE * block.q.numel():
                break
        else:
            return collector.codes()
    collector = _Collector(products, bias, rule)
    for block in products.blocks(is_exact=True):
        collector.add(block)
    return collector.codes()


def _top_k_of_batch(products: Products, bias: Tensor, k: int | float) -> Codes:
    """Guess the threshold from the first rows, keep a little more than it wants, and check that it is enough."""
    n_rows, n_latents = products.x.shape[0], bias.shape[0]
    wanted = int(n_rows * k)
    if n_rows == 0:
        return keep(products, bias, Above(0.0))
    for margin in (1.25, 2.5):
        guess = _guess_threshold(products, bias, min(n_latents, int(4 * margin * k) + 1), margin * k)
        codes = keep(products, bias, Above(guess))
        if codes.values.shape[0] >= wanted or guess == 0:
            break
    else:
        codes = keep(products, bias, Above(0.0))
    return codes if codes.values.shape[0] <= wanted else codes.where(largest(codes.values, wanted))


def _guess_threshold(products: Products, bias: Tensor, per_row: int, k: float) -> float:
    """About where the k-th largest value per row lies, from the first block."""
    collector = _Collector(products, bias, TopKOfRow(per_row))
    block = next(products.blocks(is_exact=not products.can_round))
    collector.add(block)
    values, rank = collector.codes().values, int(k * block.q.shape[0])
    return 0.0 if rank >= values.shape[0] else values.kthvalue(values.shape[0] - rank).values.item()


class _Collector:
    """Takes blocks of rows in order, keeps what the rule keeps, and makes Codes of it."""

    def __init__(self, products: Products, bias: Tensor, rule: TopKOfRow | Above | GroupMax) -> None:
        self.rule = rule
        self.n_rows = 0
        self.n_latents = bias.shape[0]
        self.counts: list[np.ndarray] = []
        self.parts: list[tuple[np.ndarray, ...]] = []
        self.x, self.W, self.size, self.bias = map(array, (products.x, products.W, products.size, bias))
        self.scratch = np.empty((0, 0), np.int32), np.empty((0, 0), self.bias.dtype)
        self.number = self.bias.dtype.type
        self.tiny = np.nextafter(self.number(0), self.number(1))
        limits = torch.finfo(bias.dtype)
        room = _ROOM * limits.eps
        # a product of bfloat16 numbers vanishes where it would be subnormal
        vanished = 2 * self.x.shape[1] * limits.tiny if products.can_round else 0.0
        low, high = bias - room * bias.abs() - vanished, bias + room * bias.abs() + vanished
        if isinstance(rule, Above):
            threshold = torch.as_tensor(rule.threshold, dtype=bias.dtype).expand(bias.shape)
            high = high - threshold + room * threshold.abs()
            self.threshold = array(threshold)
        self.low, self.high = array(low), array(high)

    def add(self, block: Block) -> int:
        """Take the next rows; returns how many entries were kept."""
        n_rows = block.q.shape[0]
        rows = slice(self.n_rows, self.n_rows + n_rows)
        ids, values = self._room_for(n_rows)
        counts = np.empty(n_rows, np.int64)
        q, x, rounding = array(block.q), self.x[rows], self.number(block.rounding)
        given: tuple[Any, ...] = (self.bias, self.size, array(block.slack), rounding, block.is_exact, x, self.W)
        out = (ids, values, counts)
        match self.rule:
            case TopKOfRow(k, signed):
                scan.top_k(q, self.low, self.high, self.tiny, *given, min(k, self.n_latents), signed, *out)
            case Above():
                scan.above(q, self.high, self.threshold, *given, *out)
            case GroupMax(n_groups):
                scan.group_max(q, self.low, self.high, self.tiny, *given, n_groups, *out)
        self._append(*out)
        self.n_rows += n_rows
        return int(counts.sum())

    def codes(self) -> Codes:
        """Everything that was kept."""
        parts = self.parts or [(np.empty(0, np.int64), np.empty(0, self.bias.dtype), np.empty(0, np.int64))]
        ids, values, rows = (torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True))
        offsets = np.zeros(self.n_rows + 1, np.int64)
        np.cumsum(np.concatenate([np.empty(0, np.int64), *self.counts]), out=offsets[1:])
        return Codes(values, ids, torch.from_numpy(offsets), self.n_latents, {"row_ids": rows})

    def _room_for(self, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
        if self.scratch[0].shape[0] < n_rows:
            # a row is written as far as it has entries, so the system hands out few of these pages
            shape = (n_rows, self.n_latents)
            self.scratch = np.empty(shape, np.int32), np.empty(shape, self.bias.dtype)
        return self.scratch[0][:n_rows], self.scratch[1][:n_rows]

    def _append(self, ids: np.ndarray, values: np.ndarray, counts: np.ndarray) -> None:
        offsets = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        n = int(offsets[-1])
        part = np.empty(n, np.int64), np.empty(n, values.dtype), np.empty(n, np.int64)
        scan.compact(ids, values, offsets, *part, self.n_rows)
        self.counts.append(counts)
        self.parts.append(part)
