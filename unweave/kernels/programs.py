"""Triton as the compiler of the GPU kernels: how a kernel is declared, and how large its blocks are.

Blocks follow from shapes alone and are never tuned by timing: a choice that depends on a clock would change the order
of summing, and so the result, from run to run. Sizes are chosen for an H200 (132 processors, 50 MB of L2, 4.8 TB/s).
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

L2_SHARE = 20 * 2**20
"""Bytes of a gathered matrix that stay in the L2 of an H100 or H200, beside what streams through it."""


def program(function: Any) -> Any:
    """A kernel."""
    return triton.jit(function)


def sum_type(tensor: Tensor) -> tl.dtype:
    """In which type sums over a tensor's numbers are made."""
    return tl.float64 if tensor.dtype == torch.float64 else tl.float32


def wide(tensor: Tensor) -> torch.dtype:
    """The same type for tensors that hold sums."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def ceil_div(n: int, by: int) -> int:
    """How many pieces of a length make up n."""
    return -(-n // by)


def power_of_2(n: int) -> int:
    """The least power of 2 that is no less than n."""
    return 1 << max(0, n - 1).bit_length()


def block_of(width: int, longest: int) -> int:
    """The largest power of 2 up to ``longest`` that leaves at most an eighth of the last block empty, or 64."""
    block = longest
    while block > 64 and ceil_div(width, block) * block > 1.125 * width:
        block //= 2
    return block


def slice_of(source: Tensor, longest: int = 512) -> int:
    """How many columns of a matrix are gathered at a time, so that this slice of it stays in L2, 256 bytes at least."""
    least = 256 // source.element_size()
    block = block_of(source.shape[1], longest)
    while block > least and source.shape[0] * block * source.element_size() > L2_SHARE:
        block //= 2
    return block


def n_warps(elements: int, per_thread: int) -> int:
    """Warps of 32 threads for a tile of so many elements."""
    return max(1, min(8, elements // (32 * per_thread)))
