"""Make a finished coder of tensors that were read, and say plainly where they do not fit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unweave.coders import Origin, SparseCoder, Wiring, architecture
from unweave.errors import UserError


def assemble(
    name: str, settings: Mapping[str, Any], wiring: Wiring, tensors: Mapping[str, Tensor], model: str, source: Path
) -> SparseCoder:
    """The coder of an architecture with given settings and tensors, by our names and in float32, ready for use.

    ``n_latents`` follows from ``W_dec [L, D_write]``. Raises ``UserError`` where a tensor is missing, has another shape
    or is not finite; ``source`` is the file to name then.
    """
    W_dec = matrix(tensors, "W_dec", source)
    cls = architecture(name)
    try:
        config = cls.Config(n_latents=W_dec.shape[0], **settings)
    except UserError as error:
        raise UserError(f"{str(source)!r} cannot be read as {name}: {error}") from error
    with torch.device("meta"):
        coder = cls(config, wiring)
    expected = coder.state_dict()
    if wrong := sorted(expected.keys() ^ tensors.keys()):
        what = "lacks" if wrong[0] in expected else "has besides what is known"
        raise UserError(f"{str(source)!r} {what} {wrong[0]}; it cannot be read as {name}")
    plain = {}
    for key, tensor in tensors.items():
        if tensor.shape != expected[key].shape:
            shapes = f"{list(tensor.shape)}, expected {list(expected[key].shape)}"
            raise UserError(f"{key} in {str(source)!r} has shape {shapes}; its config does not fit its tensors")
        plain[key] = tensor.detach().to(torch.float32).contiguous()
        if not plain[key].isfinite().all():
            raise UserError(f"{key} in {str(source)!r} has entries that are not finite; fetch or copy it again")
    coder.load_state_dict(plain, assign=True)
    coder.origin = Origin(model)
    return coder.eval().requires_grad_(False)


def check_finite(coder: SparseCoder, source: Path) -> None:
    """Raise ``UserError`` where what was folded into a coder has made entries that are not finite."""
    for name, tensor in coder.state_dict().items():
        if not tensor.isfinite().all():
            raise UserError(f"what {str(source)!r} says to fold into {name} is not finite; fetch or copy it again")


def matrix(tensors: Mapping[str, Tensor], name: str, source: Path) -> Tensor:
    """The matrix called ``name``; raises ``UserError`` where it is missing, or has no rows or columns."""
    if name not in tensors or tensors[name].ndim != 2 or 0 in tensors[name].shape:
        what = f"has {name} of shape {list(tensors[name].shape)}" if name in tensors else f"lacks {name}"
        raise UserError(f"{str(source)!r} {what}, expected a matrix; it is not a whole dictionary")
    return tensors[name]
