"""Whether a tensor takes a kernel's path for GPUs."""

from torch import Tensor

GPUS = {"cuda"}
"""Kinds of device whose tensors take it; tests add ``cpu``, where Triton's interpreter runs the same programs."""


def on_gpu(tensor: Tensor) -> bool:
    """Whether this tensor takes the path for GPUs."""
    return tensor.device.type in GPUS
