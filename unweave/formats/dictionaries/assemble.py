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
    W_dec = tensors.get("W_dec")
    if W_dec is None or W_dec.ndim != 2:
        raise UserError(f"{str(source)!r} has no matrix of decoder rows; it is not a whole dictionary")
    cls = architecture(name)
    with torch.device("meta"):
        coder = cls(cls.Config(n_latents=W_dec.shape[0], **settings), wiring)
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
