"""crosslayer-transcoder (Goreg12345): a folder with ``config.yaml`` and ``checkpoint.safetensors``.

Tensors are ``encoder.W [n_layers, D, L]``, ``encoder.b [n_layers, L]``, ``decoder.b [n_layers, D]``, and either, for a
``Decoder``, which writes each layer from its own latents, ``decoder.W [n_layers, L, D]``, or, for a
``CrosslayerDecoder``, ``decoder.W_{t} [t + 1, L, D]`` for each target layer t, whose row n is what latents of layer n
write. With h_n = x_n encoder.W[n] + encoder.b[n]: f_n = h where h > theta and h > 0 (``JumpReLU``,
``nonlinearity.theta [1, n_layers, L]``), relu(h) (``ReLU``), or the k largest entries of relu(h) in each layer
(``PerLayerTopK``); y_t = sum over n <= t of f_n decoder.W_t[n] + decoder.b[t]. Standardisers subtract a mean and divide
by a spread for each column, as ``input_standardizer.mean`` and ``.std``, and undo it in what is written; they are
folded.

``LayerTopK`` chooses among all layers at once and ``BatchTopK`` among rows, so a coder for each layer cannot have them;
they are refused. Files ``encoder.pt`` and ``decoder.pt`` without the checkpoint do not say the non-linearity.

Layer n reads the stream before the MLP's norm and writes what the MLP adds. Each source layer is a coder,
``layers.{n}``; decoder.b[n] is with coder n, at the first site that it writes.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unweave.coders import Port, SparseCoder, Wiring
from unweave.errors import UserError
from unweave.formats.dictionaries import Place
from unweave.formats.dictionaries.assemble import assemble
from unweave.formats.dictionaries.config_file import integer, peek, read_yaml_object, section, text
from unweave.formats.dictionaries.whereabouts import at_layer, either
from unweave.formats.tensor_file import exactly, read_tensors, shaped

_PACKAGE = "crosslayer_transcoder.model."
_SITES = Place("", "blocks.{layer}.hook_resid_mid", "blocks.{layer}.hook_mlp_out")


def recognises(path: Path) -> bool:
    """Whether this is a folder, or the checkpoint of one, whose config names the library's classes."""
    file = _file(path)
    model = peek(file.parent / "config.yaml").get("model") if file.is_file() else None
    return isinstance(model, dict) and str(model.get("class_path", "")).startswith(_PACKAGE)


def read(path: Path, place: Place) -> dict[str, SparseCoder]:
    """The coders of a folder, by layer."""
    file = _file(path)
    config_file = file.parent / "config.yaml"
    model = section(read_yaml_object(config_file), "model", config_file)
    if _class(model, config_file) != "CrossLayerTranscoder":
        raise UserError(f"{str(config_file)!r} is of a {_class(model, config_file)}, expected CrossLayerTranscoder")
    arguments = section(model, "init_args", config_file)
    chosen = section(arguments, "nonlinearity", config_file)
    kind = _class(chosen, config_file)
    if kind not in ("JumpReLU", "ReLU", "PerLayerTopK"):
        raise UserError(
            f"{str(file)!r} has nonlinearity {kind!r}, which chooses among layers or rows at once; a coder "
            "for each layer cannot do that"
        )
    tensors = read_tensors(file)
    tensors.pop("nonlinearity.bandwidth", None)
    weights, biases = _weights(tensors, _class(section(arguments, "decoder", config_file), config_file), kind, file)
    _fold_standardisers(tensors, weights, biases, arguments, config_file)
    k = integer(section(chosen, "init_args", config_file), "k", config_file) if kind == "PerLayerTopK" else 0
    place = either(place, _SITES)
    return {f"layers.{n}": _coder(n, tensors, weights[n], biases[n], kind, k, place, file) for n in range(len(weights))}


def _coder(
    n: int, tensors: dict[str, Tensor], W_dec: Tensor, bias: Tensor, kind: str, k: int, place: Place, file: Path
) -> SparseCoder:
    n_targets, width = W_dec.shape[1:]
    ours = {
        "W_enc": tensors["encoder.W"][n].T,
        "b_enc": tensors["encoder.b"][n],
        "W_dec": W_dec.flatten(1),
        "b_dec": torch.cat([bias, torch.zeros((n_targets - 1) * width)]),
    }
    targets = [at_layer(place, n + later).target for later in range(n_targets)]
    reads = (Port(at_layer(place, n).site, tensors["encoder.W"].shape[1]),)
    wiring = Wiring(reads, tuple(Port(target, width) for target in targets))
    settings: dict[str, Any] = {"centre": False}
    if kind == "ReLU":
        return assemble("relu", {**settings, "variant": "april_2024"}, wiring, ours, place.model, file)
    if kind == "PerLayerTopK":
        return assemble("topk", {**settings, "k": k, "decoder_norm": "free"}, wiring, ours, place.model, file)
    ours["threshold"] = tensors["nonlinearity.theta"][0, n].clamp(min=0.0)
    return assemble("jumprelu", settings, wiring, ours, place.model, file)


def _weights(tensors: dict[str, Tensor], decoder: str, kind: str, file: Path) -> tuple[list[Tensor], list[Tensor]]:
    """What latents of each layer write, [L, n_targets, D], and the bias of each layer."""
    n_layers = tensors["encoder.W"].shape[0] if "encoder.W" in tensors and tensors["encoder.W"].ndim else 0
    own = {"decoder.W": 3} if decoder == "Decoder" else {f"decoder.W_{t}": 3 for t in range(n_layers)}
    theta = {"nonlinearity.theta": 3} if kind == "JumpReLU" else {}
    axes = {"encoder.W": 3, "encoder.b": 2, "decoder.b": 2, **own, **theta}
    folded = {f"{end}_standardizer.{name}": 2 for end in ("input", "output") for name in ("mean", "std")}
    exactly(tensors, axes, file, **folded)
    _, width, n_latents = tensors["encoder.W"].shape
    shapes = {
        "encoder.b": (n_layers, n_latents),
        "decoder.b": (n_layers, width),
        "decoder.W": (n_layers, n_latents, width),
    }
    shapes |= {f"decoder.W_{t}": (t + 1, n_latents, width) for t in range(n_layers)}
    shapes |= {"nonlinearity.theta": (1, n_layers, n_latents), **dict.fromkeys(folded, (n_layers, width))}
    shaped(tensors, shapes, file)
    for name, tensor in tensors.items():
        tensors[name] = tensor.to(torch.float32)
    if decoder == "Decoder":
        weights = [W[:, None] for W in tensors["decoder.W"]]
    else:
        weights = [torch.stack([tensors[f"decoder.W_{t}"][n] for t in range(n, n_layers)], 1) for n in range(n_layers)]
    return weights, list(tensors["decoder.b"])


def _fold_standardisers(
    tensors: dict[str, Tensor],
    weights: list[Tensor],
    biases: list[Tensor],
    arguments: dict[str, Any],
    config_file: Path,
) -> None:
    """Change the tensors in place to those that work on rows as they are."""
    for end in ("input", "output"):
        name = f"{end}_standardizer"
        standardiser = section(arguments, name, config_file, {})
        kind = _class(standardiser, config_file) if standardiser else ""
        has = f"{name}.mean" in tensors, f"{name}.std" in tensors
        if (
            kind not in ("", "Standardizer", f"Dimensionwise{end.capitalize()}Standardizer")
            or has != (kind[:1] == "D",) * 2
        ):
            raise UserError(f"{str(config_file)!r} has {name} {kind or None!r}, which cannot be folded into weights")
        if kind[:1] != "D":
            continue
        mean, std = tensors[f"{name}.mean"], tensors[f"{name}.std"]
        if end == "input":
            tensors["encoder.W"] = tensors["encoder.W"] / std[:, :, None]
            tensors["encoder.b"] = tensors["encoder.b"] - torch.einsum("nd,ndl->nl", mean, tensors["encoder.W"])
            continue
        for n in range(len(weights)):
            weights[n] = weights[n] * std[n : n + weights[n].shape[1]]
            biases[n] = biases[n] * std[n] + mean[n]


def _class(part: dict[str, Any], config_file: Path) -> str:
    return text(part, "class_path", config_file).rpartition(".")[2]


def _file(path: Path) -> Path:
    return path / "checkpoint.safetensors" if path.is_dir() else path
