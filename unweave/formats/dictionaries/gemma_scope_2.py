"""Gemma Scope 2 (Google DeepMind 2025): a folder with ``params.safetensors`` and ``config.json``.

Tensors are ``w_enc [D, L]``, ``w_dec [L, D_out]``, ``b_enc``, ``b_dec`` and ``threshold [L]``; a skip transcoder has
``affine_skip_connection [D, D_out]``. With h = x w_enc + b_enc: f = h where h > threshold and h > 0;
y = f w_dec + b_dec + x affine_skip_connection. b_dec is not subtracted from x. The config's ``hf_hook_point_in`` and
``hf_hook_point_out`` are Hugging Face modules and a side; without a config the folder's name says as much.

Cross-layer transcoders have one file for each layer, ``params_layer_{n}.safetensors`` or in whatever name says
``layer_{n}``, where ``w_dec [L, n_layers, D_out]``. Layer n writes layers n and later; what stands for earlier ones is
not used (circuit-tracer leaves it out too). ``b_dec`` and the skip connection belong to layer n alone.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unweave.coders import Port, SparseCoder, Wiring
from unweave.errors import UserError
from unweave.formats.dictionaries import Place
from unweave.formats.dictionaries.assemble import assemble
from unweave.formats.dictionaries.config_file import choice, read_json_object, text
from unweave.formats.dictionaries.whereabouts import (
    at_layer,
    either,
    folder_name,
    in_path,
    layer_in_path,
    sae_or_transcoder,
)
from unweave.formats.tensor_file import exactly, names_in, read_tensors, shaped

_AXES = {"w_enc": 2, "b_enc": 1, "b_dec": 1, "threshold": 1}
_POINTS = {
    "output": "blocks.{}.hook_resid_post",
    "self_attn.o_proj.input": "blocks.{}.attn.hook_z",
    "post_feedforward_layernorm.output": "blocks.{}.hook_mlp_out",
    "pre_feedforward_layernorm.output": "layers.{}.mlp_in",
}


def recognises(path: Path) -> bool:
    """Whether this is such a file, or a folder with one or, for a cross-layer transcoder, several."""
    return bool(_files(path))


def read(path: Path, place: Place) -> dict[str, SparseCoder]:
    """The coder of a folder or file, or the coders of a cross-layer transcoder, by layer."""
    files = _files(path)
    if not files:
        raise UserError(f"{str(path)!r} has no parameters of Gemma Scope 2; give a folder with params.safetensors")
    found = {}
    for file in files:
        tensors = read_tensors(file)
        many = tensors["w_dec"].ndim == 3 if "w_dec" in tensors else False
        exactly(tensors, {**_AXES, "w_dec": 3 if many else 2}, file, affine_skip_connection=2)
        found |= _cross_layer(tensors, file, place) if many else _single(tensors, file, place)
    return found


def _single(tensors: dict[str, Tensor], file: Path, place: Place) -> dict[str, SparseCoder]:
    place = either(place, _place(file))
    d_read, d_write = tensors["w_enc"].shape[0], tensors["w_dec"].shape[1]
    skip = "affine_skip_connection" in tensors
    wiring = sae_or_transcoder(place, d_read, d_write, file, skip=skip)
    ours = {**_encoder(tensors), "W_dec": tensors["w_dec"], "b_dec": tensors["b_dec"]}
    if skip:
        ours["W_skip"] = tensors["affine_skip_connection"].T
    coder = assemble("jumprelu", {"centre": False}, wiring, ours, place.model, file)
    return {folder_name(file) if file.name == "params.safetensors" else file.stem: coder}


def _cross_layer(tensors: dict[str, Tensor], file: Path, place: Place) -> dict[str, SparseCoder]:
    number = layer_in_path(file, r"layer_(\d+)")
    n_layers, d_write = tensors["w_dec"].shape[1:]
    if not number or not int(number) < n_layers:
        raise UserError(f"the name of {str(file)!r} should say which layer of {n_layers} it is, as layer_0")
    layer = int(number)
    found = Place(_place(file).model, "layers.{layer}.mlp_in", "blocks.{layer}.hook_mlp_out")
    place = either(place, found)
    reads = (Port(at_layer(place, layer).site, tensors["w_enc"].shape[0]),)
    writes = tuple(Port(at_layer(place, target).target, d_write) for target in range(layer, n_layers))
    shaped(tensors, {"b_dec": (d_write,), "affine_skip_connection": (reads[0].width, d_write)}, file)
    b_dec = torch.zeros(d_write * len(writes))
    b_dec[:d_write] = tensors["b_dec"]
    ours = {**_encoder(tensors), "W_dec": tensors["w_dec"][:, layer:].flatten(1), "b_dec": b_dec}
    skip = tensors.get("affine_skip_connection")
    if skip is not None:
        ours["W_skip"] = torch.cat([skip.T, skip.new_zeros(len(b_dec) - skip.shape[1], skip.shape[0])])
    wiring = Wiring(reads, writes, skip is not None)
    return {f"layers.{layer}": assemble("jumprelu", {"centre": False}, wiring, ours, place.model, file)}


def _encoder(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    threshold = tensors["threshold"].to(torch.float32).clamp(min=0.0)
    return {"W_enc": tensors["w_enc"].T, "b_enc": tensors["b_enc"], "threshold": threshold}


def _files(path: Path) -> list[Path]:
    if path.is_file():
        files = [path] if path.suffix == ".safetensors" else []
    else:
        whole = path / "params.safetensors"
        layers = {layer_in_path(file, r"layer_(\d+)"): file for file in path.glob("*layer_*.safetensors")}
        files = [whole] if whole.is_file() else [layers[number] for number in sorted(layers, key=_as_number)]
    return [file for file in files if {"w_enc", "w_dec", "threshold"} <= names_in(file)]


def _as_number(text: str) -> int:
    return int(text) if text.isdigit() else -1


def _place(file: Path) -> Place:
    config_file = file.parent / "config.json"
    if config_file.is_file():
        return _place_in(read_json_object(config_file), config_file)
    model = in_path(r"gemma-scope-2-(\w+)-(pt|it)", file)
    name = _model_name(f"gemma-3-{model[1]}-{model[2]}") if model else ""
    layer = layer_in_path(file, r"layer_(\d+)")
    point = in_path(r"(resid_post|attn_out|mlp_out|transcoder)", file)
    if not layer or point is None:
        return Place(name)
    if point[1] == "transcoder":
        return Place(name, f"layers.{layer}.mlp_in", f"blocks.{layer}.hook_mlp_out")
    hooks = {"resid_post": "hook_resid_post", "attn_out": "attn.hook_z", "mlp_out": "hook_mlp_out"}
    return Place(name, f"blocks.{layer}.{hooks[point[1]]}")


def _place_in(config: dict[str, Any], config_file: Path) -> Place:
    choice(config, "architecture", config_file, ("jump_relu",), "jump_relu")
    site = _site(text(config, "hf_hook_point_in", config_file, ""))
    target = _site(text(config, "hf_hook_point_out", config_file, ""))
    return Place(_model_name(text(config, "model_name", config_file, "")), site, target if target != site else "")


def _site(module: str) -> str:
    """``blocks.12.hook_resid_post`` for ``model.layers.12.output``; another module and side as models here spell it."""
    match = re.search(r"layers\.(\d+)\.(.+)", module)
    if match and match[2] in _POINTS:
        return _POINTS[match[2]].format(match[1])
    path, _, side = module.rpartition(".")
    return f"{path}:{side.removesuffix('put')}" if side in ("input", "output") else module


def _model_name(name: str) -> str:
    name = name.removeprefix("google/").replace("-v3", "-3")
    if "270m" in name:
        name = name.removesuffix("-pt")  # the only size whose pretrained model is called by its size alone
    return f"google/{name}" if name else ""
