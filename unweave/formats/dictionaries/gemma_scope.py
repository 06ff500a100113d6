"""Gemma Scope 1 (Lieberum et al. 2024, arXiv 2408.05147): a folder with ``params.npz``.

Tensors are ``W_enc [D, L]``, ``W_dec [L, D]``, ``b_enc``, ``b_dec`` and ``threshold [L]``, in some repositories spelt
``w_enc`` and ``w_dec``. With h = x W_enc + b_enc: f = h where h > threshold and h > 0; y = f W_dec + b_dec. b_dec is
not subtracted from x. The repository's name says the model and the site, the folder's name the layer:
``gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82``; attention means the heads' outputs before they are mixed,
and a transcoder reads what the MLP does, after its norm, and writes what it adds to the stream.

Those in ``embedding/`` were trained on rows of the embedding matrix, which the model multiplies by the root of its
width before anything reads them. They are scaled here to read and write the multiplied rows, b_dec included.
"""

from pathlib import Path

import torch
from torch import Tensor

from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.formats.dictionaries import Place
from unweave.formats.dictionaries.assemble import assemble
from unweave.formats.dictionaries.whereabouts import either, folder_name, in_path, layer_in_path, sae_or_transcoder
from unweave.formats.tensor_file import exactly, names_in, read_tensors

_POINTS = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z", "transcoders": "ln2.hook_normalized"}
_AXES = {"w_enc": 2, "w_dec": 2, "b_enc": 1, "b_dec": 1, "threshold": 1}


def recognises(path: Path) -> bool:
    """Whether this is ``params.npz``, or a folder with it."""
    file = _file(path)
    return file.is_file() and file.name == "params.npz" and {"b_enc", "b_dec", "threshold"} <= names_in(file)


def read(path: Path, place: Place) -> dict[str, SparseCoder]:
    """The one coder of a folder."""
    file = _file(path)
    tensors = {_lower(name): tensor for name, tensor in read_tensors(file).items()}
    exactly(tensors, _AXES, file, scaling_factor=1)
    if not torch.equal(factor := tensors.pop("scaling_factor", torch.ones(1)), torch.ones_like(factor)):
        raise UserError(f"{str(file)!r} has a scaling_factor that is not 1, which no published coder has")
    place = either(place, _place(file))
    d_read, d_write = tensors["w_enc"].shape[0], tensors["w_dec"].shape[1]
    wiring = sae_or_transcoder(place, d_read, d_write, file)
    scale = d_read**0.5 if _is_of_embedding(file) else 1.0
    ours = {
        "W_enc": tensors["w_enc"].T / scale,
        "b_enc": tensors["b_enc"],
        "threshold": tensors["threshold"].clamp(min=0.0),
        "W_dec": tensors["w_dec"] * scale,
        "b_dec": tensors["b_dec"] * scale,
    }
    coder = assemble("jumprelu", {"centre": False}, wiring, _single(ours), place.model, file)
    return {folder_name(file): coder}


def _file(path: Path) -> Path:
    return path / "params.npz" if path.is_dir() else path


def _lower(name: str) -> str:
    return name.replace("W_", "w_")


def _single(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(torch.float32) for name, tensor in tensors.items()}


def _is_of_embedding(file: Path) -> bool:
    return in_path(r"/embedding/", file) is not None


def _place(file: Path) -> Place:
    repository = in_path(r"gemma-scope-(2b|9b|27b)-(pt|it)-(res|mlp|att|transcoders)", file)
    if repository is None:
        return Place()
    size, kind, point = repository.groups()
    model = f"google/gemma-2-{size}" + ("-it" if kind == "it" else "")
    if _is_of_embedding(file):
        return Place(model, "hook_embed")
    layer = layer_in_path(file, r"layer_(\d+)")
    if not layer:
        return Place(model)
    target = f"blocks.{layer}.hook_mlp_out" if point == "transcoders" else ""
    return Place(model, f"blocks.{layer}.{_POINTS[point]}", target)
