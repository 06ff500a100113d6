"""Encoding on a CPU: bfloat16 proposes, float32 decides.

The dense product is made in bfloat16, which CPUs with AVX512-BF16 or AMX do more than twice as fast as float32. Its
error is bounded (see bounds.py), so the entries that a rule could keep are known, a little more than it will keep; only
their float32 products are computed, and the rule decides among those. What comes out is what the float32 product would
have given, up to the order of summing. Without such instructions, in float64, and where more than a few percent are
candidates, the product itself is exact and nothing is multiplied twice.

Rows go through in blocks, so that a block of products stays in the cache and [B, L] is never in memory.
"""

from collections.abc import Iterator
from functools import cache, cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.kernels.encode.bounds import ROUNDING, Rounded, rounded, slack
from unweave.kernels.selection.cpu import FIRST, Block, keep
from unweave.kernels.selection.rules import Rule
from unweave.types import Codes

BLOCK = 256
"""Rows of a block."""
WORTH = 2**24
"""Multiplications from which rounding the operands pays."""


def encode(x: Float[Tensor, "B D"], W: Float[Tensor, "L D"], bias: Float[Tensor, " L"], rule: Rule) -> Codes:
    """Codes of ``x @ W.T + bias`` at the entries that the rule keeps."""
    return keep(_Products(x.contiguous(), W.contiguous()), bias, rule)


class _Products:
    """Rows times latents, multiplied block by block."""

    def __init__(self, x: Float[Tensor, "B D"], W: Float[Tensor, "L D"]) -> None:
        self.x, self.W = x, W
        self.can_round = x.dtype == torch.float32 and _has_bfloat16() and x.shape[0] * W.numel() >= WORTH
        self.size = self._rounded[1].norms if self.can_round else W.new_zeros(W.shape[0])

    @cached_property
    def _rounded(self) -> tuple[Rounded, Rounded]:
        return rounded(self.x), rounded(self.W)

    def blocks(self, *, is_exact: bool) -> Iterator[Block]:
        """The memory of a block is used again for the next."""
        left, right, errors, rounding = self.x, self.W, self.x.new_zeros(self.x.shape[0]), 0.0
        if not is_exact:
            left, right, errors, rounding = *(r.values for r in self._rounded), slack(*self._rounded), ROUNDING
        room = left.new_empty(min(BLOCK, left.shape[0]), right.shape[0])
        start = 0
        while start < left.shape[0]:
            end = min(left.shape[0], start + (BLOCK if start else FIRST))
            block = torch.mm(left[start:end], right.T, out=room[: end - start])
            yield Block(block, errors[start:end], rounding, is_exact)
            start = end


@cache
def _has_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
