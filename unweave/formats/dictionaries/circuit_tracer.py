"""circuit-tracer (Hanna et al. 2025): a folder with ``config.yaml`` and safetensors for each layer.

Per-layer transcoders (``model_kind: transcoder_set``) are ``layer_{n}.safetensors`` with ``W_enc [L, D]``,
``W_dec [L, D]``, ``b_enc``, ``b_dec``, and where they have them ``activation_function.threshold`` (or ``threshold``)
``[L]`` and ``W_skip [D, D]``. With h = x W_enc^T + b_enc: f = relu(h), or h where h > threshold; or, where the config
has ``k``, the k largest entries of relu(h); y = f W_dec + b_dec + x W_skip^T.

Cross-layer transcoders (``model_kind: cross_layer_transcoder``) are ``W_enc_{n}.safetensors`` with
``W_enc_{n} [L, D]``, ``b_enc_{n}``, ``b_dec_{n} [D]`` and perhaps ``threshold_{n} [L]``, and ``W_dec_{n}.safetensors``
with ``W_dec_{n} [L, n_layers - n, D]``. Latents of layer n read layer n and write layers n and later:
y_t = sum over n <= t of f_n W_dec_n[:, t - n] + b_dec_t. Here each source layer is a coder that writes several sites,
one after another in its columns; b_dec_n is with coder n, at the first of them.

Layer n reads ``blocks.{n}.`` and ``feature_input_hook`` and writes ``blocks.{n}.`` and ``feature_output_hook``. Coders
are called ``layers.{n}``; a single file gives just that one. Layers that are not there are left out.
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
from unweave.formats.dictionaries.config_file import integer, read_yaml_object, text
from unweave.formats.dictionaries.whereabouts import at_layer, either, transcoder
from unweave.formats.tensor_file import exactly, names_in, read_tensors

_AXES = {"W_enc": 2, "W_dec": 2, "b_enc": 1, "b_dec": 1}
_THRESHOLD = "activation_function.threshold"


def recognises(path: Path) -> bool:
    """Whether this is a folder of such files, or one of them."""
    files = _files(path)
    if not files:
        return False
    layer = min(files)
    names = names_in(files[layer])
    return bool({f"W_enc_{layer}", f"W_dec_{layer}"} & names) or _AXES.keys() <= names


def read(path: Path, place: Place) -> dict[str, SparseCoder]:
    """The coders of a folder, or that of a file, by layer."""
    files = _files(path)
    if not files:
        raise UserError(f"{str(path)!r} has no layer_0.safetensors or W_enc_0.safetensors; give the folder of a set")
    config_file = next(iter(files.values())).parent / "config.yaml"
    config = read_yaml_object(config_file) if config_file.is_file() else {}
    place = either(place, _place(config, config_file))
    coders = {}
    for layer, file in sorted(files.items()):
        one = _cross_layer if file.name.startswith("W_") else _per_layer
        coders[f"layers.{layer}"] = one(layer, file, place, config, config_file)
    return coders


def _per_layer(layer: int, file: Path, place: Place, config: dict[str, Any], config_file: Path) -> SparseCoder:
    tensors = read_tensors(file)
    if "threshold" in tensors:
        tensors[_THRESHOLD] = tensors.pop("threshold")
    exactly(tensors, _AXES, file, **{_THRESHOLD: 1, "W_skip": 2})
    skip = "W_skip" in tensors
    widths = tensors["W_enc"].shape[1], tensors["W_dec"].shape[1]
    wiring = transcoder(at_layer(place, layer), *widths, file, skip=skip)
    threshold = tensors.pop(_THRESHOLD, None)
    return _coder(tensors, threshold, wiring, place.model, file, config, config_file)


def _cross_layer(layer: int, file: Path, place: Place, config: dict[str, Any], config_file: Path) -> SparseCoder:
    encoder_file, decoder_file = (file.with_name(f"W_{half}_{layer}.safetensors") for half in ("enc", "dec"))
    tensors = read_tensors(encoder_file)
    decoder = read_tensors(decoder_file)
    exactly(
        tensors,
        {f"W_enc_{layer}": 2, f"b_enc_{layer}": 1, f"b_dec_{layer}": 1},
        encoder_file,
        **{f"threshold_{layer}": 1},
    )
    exactly(decoder, {f"W_dec_{layer}": 3}, decoder_file)
    W_dec, first = decoder[f"W_dec_{layer}"], tensors[f"b_dec_{layer}"]
    n_targets, width = W_dec.shape[1:]
    if len(first) != width or n_targets < 1:
        raise UserError(
            f"'W_dec_{layer}' in {str(decoder_file)!r} has shape {list(W_dec.shape)}, its bias {len(first)}"
        )
    b_dec = torch.cat([first.to(torch.float32), torch.zeros((n_targets - 1) * width)])
    wirings = [transcoder(at_layer(place, target), width, width, file) for target in range(layer, layer + n_targets)]
    reads = (Port(wirings[0].reads[0].site, tensors[f"W_enc_{layer}"].shape[1]),)
    wiring = Wiring(reads, tuple(wiring.writes[0] for wiring in wirings))
    ours = {"W_enc": tensors[f"W_enc_{layer}"], "b_enc": tensors[f"b_enc_{layer}"], "b_dec": b_dec}
    ours["W_dec"] = W_dec.flatten(1)
    threshold = tensors.get(f"threshold_{layer}")
    return _coder(ours, threshold, wiring, place.model, file, config, config_file)


def _coder(
    ours: dict[str, Tensor],
    threshold: Tensor | None,
    wiring: Wiring,
    model: str,
    file: Path,
    config: dict[str, Any],
    config_file: Path,
) -> SparseCoder:
    settings: dict[str, Any] = {"centre": False}
    if threshold is not None:
        if (threshold < 0).any():
            raise UserError(f"{str(file)!r} has thresholds below 0, which let negative activations pass; none do here")
        return assemble("jumprelu", settings, wiring, {**ours, "threshold": threshold}, model, file)
    if "k" in config:
        settings |= {"k": integer(config, "k", config_file), "decoder_norm": "free"}
        return assemble("topk", settings, wiring, ours, model, file)
    return assemble("relu", {**settings, "variant": "april_2024"}, wiring, ours, model, file)


def _place(config: dict[str, Any], config_file: Path) -> Place:
    """Sites with ``{layer}`` to be filled in."""
    read = text(config, "feature_input_hook", config_file, "")
    written = text(config, "feature_output_hook", config_file, "")
    model = text(config, "model_name", config_file, "")
    return Place(model, read and f"blocks.{{layer}}.{read}", written and f"blocks.{{layer}}.{written}")


def _files(path: Path) -> dict[int, Path]:
    """The file that stands for each layer; for a cross-layer transcoder its encoder, or what was given."""
    files = path.glob("*.safetensors") if path.is_dir() else [path]
    found: dict[int, Path] = {}
    for file in sorted(files):
        match = re.fullmatch(r"(?:layer|W_enc|W_dec)_(\d+)\.safetensors", file.name)
        if match and (not path.is_dir() or not file.name.startswith("W_dec")):
            found[int(match[1])] = file
    return found if len({file.name[:2] for file in found.values()}) == 1 else {}
