"""Sum rows into latents: the weight gradient of a sparse encoder or decoder, deterministic."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unweave.kernels.density import is_dense
from unweave.kernels.device import on_gpu
from unweave.kernels.segment_sum import reference
from unweave.types import Codes


def segment_sum(codes: Codes, weights: Float[Tensor, " E"], source: Float[Tensor, "B D"]) -> Float[Tensor, "L D"]:
    """``out[i] = sum of weights[e] * source[row(e)] over the entries e of latent i``; latents that are silent get 0."""
    if is_dense(codes):
        return reference.segment_sum(codes, weights, source)
    if on_gpu(source):
        from unweave.kernels.segment_sum import gpu

        return gpu.segment_sum(codes, weights, source)
    entries, rows, offsets = codes.by_latent
    return F.embedding_bag(rows, source, offsets, per_sample_weights=weights[entries], mode="sum")
