"""Fold into an SAE of SAELens what it does at run time, or what its training did to rows, as SAELens does itself.

While a run goes on its checkpoint has ``activation_scaler.json`` with a number s, or the tensors of
``activation_whitening.safetensors``: mean [d], matrix M [d, d] and its inverse. The SAE then works on z = s x, or on
z = (x - mean) M. Folded, activations on x are those on z; those of matching pursuit, and those that count the norms of
decoder rows, are in units of what is written, so they are those on z divided by s.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.formats.dictionaries.assemble import matrix
from unweave.formats.dictionaries.config_file import flag, number, peek, section, text
from unweave.formats.tensor_file import read_tensors

SCALE = "activation_scaler.json"
WHITENING = "activation_whitening.safetensors"


@torch.no_grad()
def fold(coder: SparseCoder, config: Mapping[str, Any], folder: Path, source: Path) -> None:
    """Change a coder in place, given the config in the terms of version 6."""
    architecture = text(config, "architecture", source)
    normalisation = text(config, "normalize_activations", source)
    trains_by_batch = architecture in ("batchtopk", "matryoshka_batchtopk")
    may_rescale = trains_by_batch or architecture in ("topk", "abstopk")
    rescales = may_rescale and flag(config, "rescale_acts_by_decoder_norm", source, trains_by_batch)
    if normalisation == "expected_average_only_in":
        _fold_scale(coder, _scale(config, folder, source), rescales)
    if rescales:
        _fold_norms(coder)
    if normalisation == "covariance_whitening":
        if architecture == "matching_pursuit":
            raise UserError(
                f"{str(source)!r} whitens rows for matching pursuit, which cannot be folded into its weights"
            )
        _fold_whitening(coder, folder / WHITENING)


def _scale(config: Mapping[str, Any], folder: Path, source: Path) -> float:
    """The number that rows were multiplied by."""
    metadata = section(config, "metadata", source)
    for said, where in ((metadata, source), (peek(folder / SCALE), folder / SCALE)):
        for key in ("norm_scaling_factor", "scaling_factor"):
            if said.get(key) is not None:
                factor = number(said, key, where)
                if factor > 0:
                    return factor
                raise UserError(f"{key!r} in {str(where)!r} is {factor}, expected a number above 0")
    raise UserError(
        f"{str(source)!r} was trained on rows scaled to a mean norm of sqrt(d_in), and no file says by how much; "
        'add "norm_scaling_factor" to it, sqrt(d_in) divided by the mean norm of the rows'
    )


def _fold_scale(coder: SparseCoder, factor: float, rescales: bool) -> None:
    if "W_enc" in coder.readers:
        coder.W_enc.mul_(factor)
        coder.W_dec.div_(factor)
    else:  # matching pursuit: values are in units of rows, and so is where it stops
        coder.get_buffer("residual_threshold").div_(factor)
    coder.b_dec.div_(factor)
    if rescales and "threshold" in dict(coder.named_buffers()):
        coder.get_buffer("threshold").div_(factor)  # it counts the norm of decoder rows


def _fold_norms(coder: SparseCoder) -> None:
    """Count the norm of each decoder row in the encoder instead."""
    norms_L = coder.W_dec.norm(dim=1).clamp(min=1e-8)
    coder.W_enc.mul_(norms_L[:, None])
    coder.b_enc.mul_(norms_L)
    coder.W_dec.div_(norms_L[:, None])


def _fold_whitening(coder: SparseCoder, path: Path) -> None:
    tensors = read_tensors(path)
    width = coder.d_model
    mean_D, M_DD, inverse_DD = _square(tensors, path, width)
    coder.W_enc.copy_(coder.W_enc.double() @ M_DD.T)
    if not coder.config.centre:
        coder.shift_input(mean_D.to(coder.W_enc))
    coder.W_dec.copy_(coder.W_dec.double() @ inverse_DD)
    coder.b_dec.copy_(coder.b_dec.double() @ inverse_DD + mean_D)


def _square(tensors: dict[str, Tensor], path: Path, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The mean, the matrix and its inverse, if they have the width."""
    found = [matrix(tensors, name, path) for name in ("matrix", "inverse_matrix")]
    mean = tensors.get("mean")
    if mean is None or mean.shape != (width,) or any(square.shape != (width, width) for square in found):
        raise UserError(f"{str(path)!r} does not have a mean [{width}] and matrices [{width}, {width}]")
    return mean.double(), found[0].double(), found[1].double()
