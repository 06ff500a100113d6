"""Whether a tensor takes a kernel's path for GPUs, and numbers that a device is sent once."""

from functools import lru_cache

import torch
from jaxtyping import Int
from torch import Tensor

GPUS = {"cuda"}
"""Kinds of device whose tensors take it; tests add ``cpu``, where Triton's interpreter runs the same programs."""


def on_gpu(tensor: Tensor) -> bool:
    """Whether this tensor takes the path for GPUs."""
    return tensor.device.type in GPUS


@lru_cache(maxsize=64)
def constant(numbers: tuple[int, ...], device: torch.device) -> Int[Tensor, " n"]:
    """Numbers as a tensor, which is made once and must not be written to: each transfer makes a GPU wait."""
    return torch.tensor(numbers, device=device)
