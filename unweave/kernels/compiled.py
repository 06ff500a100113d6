"""Numba as the compiler of the CPU kernels: its settings, and how bfloat16 is read, for which NumPy has no type."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload
from torch import Tensor

# sums may be reordered into vector registers; NaN and infinity keep their meaning
_FAST = {"reassoc", "contract", "nsz", "arcp"}


def loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function when it is first called."""
    return _compiled(function)


def parallel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function when it is first called, whose loops over ``numba.prange`` share the processor's cores."""
    return _compiled(function, parallel=True)


def array(tensor: Tensor) -> Any:
    """A CPU tensor as a NumPy array on the same memory; bfloat16 as its 16 bits."""
    tensor = tensor.detach().contiguous()
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def _compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return numba.njit(function, cache=True, nogil=True, fastmath=_FAST, error_model="numpy", **options)


@loop
def dot(left, right):  # type: ignore[no-untyped-def]
    """Sum of products, in as many partial sums as the vector registers hold."""
    total = left[0] * right[0]
    for d in range(1, left.shape[0]):
        total += left[d] * right[d]
    return total


@intrinsic
def _float_of_bits(_, bits):  # type: ignore[no-untyped-def]
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


def number(value: Any) -> Any:
    """In compiled code: the number that an array element stands for, itself or a bfloat16 from its bits."""
    raise NotImplementedError("for compiled code only")


def _number(value):  # type: ignore[no-untyped-def]
    if value == types.uint16:
        return lambda value: _float_of_bits(np.uint32(value) << np.uint32(16))  # pyright: ignore[reportCallIssue]
    return lambda value: value


overload(number, inline="always")(_number)
