"""Dot products at active entries only: the gradient of the latents."""

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.kernels.density import is_dense
from unweave.kernels.device import on_gpu
from unweave.kernels.sampled_dot import reference
from unweave.types import Codes


def sampled_dot(codes: Codes, left: Float[Tensor, "B D"], right: Float[Tensor, "L D"]) -> Float[Tensor, " E"]:
    """``out[e] = left[row(e)] . right[latent(e)]`` for every active entry e."""
    if is_dense(codes):
        return reference.sampled_dot(codes, left, right)
    if on_gpu(left):
        from unweave.kernels.sampled_dot import gpu

        return gpu.sampled_dot(codes, left, right)
    if left.device.type != "cpu" or left.dtype not in (torch.float32, torch.float64):
        return reference.sampled_dot(codes, left, right)
    from unweave.kernels.sampled_dot import cpu

    return cpu.sampled_dot(codes, left, right)
