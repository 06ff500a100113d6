"""SAELens: a folder with ``cfg.json`` and ``sae_weights.safetensors``, of versions 2 to 6, finished or in training.

With x_in the row after ``normalize_activations``, less b_dec if ``apply_b_dec_to_input``, and h = x_in W_enc + b_enc:

    standard           relu(h)
    topk               relu of the k largest h of a row
    abstopk            the k of a row with the largest |h|, with their sign
    jumprelu           relu(h) where h > threshold [d_sae]
    batchtopk          in training, and so matryoshka_batchtopk: relu(h) where h > topk_threshold, a number
    gated              relu(x_in (W_enc exp(r_mag)) + b_mag) where x_in W_enc + b_gate > 0; there is no b_enc
    matching_pursuit   the steps of ``unweave.coders.matching_pursuit`` with the rows of W_dec; there is no W_enc
    transcoder         relu(h), read elsewhere than written, never less b_dec; jumprelu_transcoder likewise; in a
                       skip_transcoder and a jumprelu_skip_transcoder x W_skip^T is added to what is written
    temporal           ``unweave.coders.temporal``, with the weights of ``saelens_temporal``; there is no b_enc

W_enc is [d_in, d_sae], W_dec [d_sae, d_out], W_skip [d_out, d_in]; what is written is f W_dec + b_dec. Ours is W_enc
transposed. With ``rescale_acts_by_decoder_norm`` h counts times the norm of its row of W_dec, and f is divided by it
before it is decoded; that is folded into the weights, and so are scales and whitening of a run that is not finished.

``metadata`` says the model and the site, in TransformerLens' spelling, which is kept. Behind it ``:centred`` says that
the residual stream is to have no mean, and ``:unbiased`` that the heads are to have no value bias, as a model made with
``center_writing_weights`` or ``fold_value_biases`` had it in training. An SAE without a version is older than 6: its
config is flat, and has other names.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from unweave.coders import Origin, Port, SparseCoder, Wiring
from unweave.errors import UserError, nearest
from unweave.formats.dictionaries import Place
from unweave.formats.dictionaries.assemble import assemble, check_finite, matrix
from unweave.formats.dictionaries.config_file import flag, integer, number, read_json_object, section, text
from unweave.formats.dictionaries.saelens_config import ROW_NORMS, SCALED, as_of_version_6, place_of
from unweave.formats.dictionaries.saelens_export import write
from unweave.formats.dictionaries.saelens_folding import fold
from unweave.formats.dictionaries.saelens_temporal import our_settings, our_tensors
from unweave.formats.dictionaries.whereabouts import transcoder
from unweave.formats.tensor_file import read_tensors

__all__ = ["read", "recognises", "write"]

CONFIG = "cfg.json"
CORRECTIONS = ("normalize_activations", "norm_scaling_factor")
"""What the directory of SAELens itself puts over the config of some releases."""
WEIGHTS = "sae_weights.safetensors"
_OURS = {
    "standard": "relu",
    "gated": "gated",
    "topk": "topk",
    "abstopk": "abs_topk",
    "jumprelu": "jumprelu",
    "batchtopk": "batch_topk",
    "matryoshka_batchtopk": "matryoshka",
    "matching_pursuit": "matching_pursuit",
    "temporal": "temporal",
    "transcoder": "relu",
    "skip_transcoder": "relu",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}


def recognises(path: Path) -> bool:
    """Whether this is such a folder, or its file of weights or its config."""
    folder = _folder(path)
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def read(path: Path, place: Place, config: Mapping[str, Any] = MappingProxyType({})) -> dict[str, SparseCoder]:
    """The one coder of a folder; ``config`` has settings that win over the file's."""
    folder = _folder(path)
    source = folder / CONFIG
    config = as_of_version_6({**read_json_object(source), **config}, source)
    tensors = _renamed(read_tensors(folder / WEIGHTS), config, source)
    architecture = text(config, "architecture", source)
    model, reads, writes = place_of(config, place, source)
    wiring = _wiring(tensors, config, reads, writes, folder)
    settings = _settings(config, tensors, source)
    coder = assemble(_OURS[architecture], settings, wiring, tensors, model, folder / WEIGHTS)
    fold(coder, config, folder, source)
    check_finite(coder, folder)
    coder.origin = Origin(model, flag(section(config, "metadata", source), "prepend_bos", source, True))
    return {folder.absolute().name: coder}


def _folder(path: Path) -> Path:
    return path.parent if path.name in (CONFIG, WEIGHTS) else path


def _renamed(tensors: dict[str, Tensor], config: dict[str, Any], source: Path) -> dict[str, Tensor]:
    """The tensors by our names and in our orientation."""
    architecture = text(config, "architecture", source)
    if architecture not in _OURS:
        hint = nearest(architecture, _OURS)
        raise UserError(f"{str(source)!r} has the unknown architecture {architecture!r}{hint}; convert it with SAELens")
    if architecture == "temporal":
        return _temporal_tensors(tensors, config, source)
    tensors = dict(tensors)
    scaling = tensors.pop("scaling_factor", None)
    if scaling is not None and not (scaling.float() == 1).all():
        raise UserError(f"{str(source)!r} scales activations after fine-tuning, which SAELens 6 cannot load either")
    if "log_threshold" in tensors:
        tensors["threshold"] = tensors.pop("log_threshold").float().exp()
    if "threshold" in tensors:  # what is below 0 makes no difference behind the relu
        tensors["threshold"] = tensors["threshold"].float().clamp(min=0.0)
    if _OURS[architecture] in ("batch_topk", "matryoshka") and "topk_threshold" in tensors:
        tensors["threshold"] = tensors.pop("topk_threshold").float()
    if architecture == "gated" and "b_gate" in tensors:
        tensors["b_enc"] = tensors.pop("b_gate")
    if architecture == "matching_pursuit":
        threshold = max(0.0, number(config, "residual_threshold", source, 1e-2))
        tensors["residual_threshold"] = torch.tensor(threshold)
        if "b_dec" in tensors and not flag(config, "apply_b_dec_to_input", source, True):
            tensors["b_dec"] = torch.zeros_like(tensors["b_dec"])  # then SAELens does not add it either
    else:
        tensors["W_enc"] = matrix(tensors, "W_enc", source).T
    return tensors


def _temporal_tensors(tensors: Mapping[str, Tensor], config: Mapping[str, Any], source: Path) -> dict[str, Tensor]:
    tied = flag(config, "tied_weights", source, True)
    ours = our_tensors(tensors, _temporal_scale(config, source), source, tied=tied)
    if tied and "b_dec" in ours and not flag(config, "apply_b_dec_to_input", source, True):
        ours["b_dec"] = torch.zeros_like(ours["b_dec"])  # then SAELens does not add it either
    return ours


def _temporal_scale(config: Mapping[str, Any], source: Path) -> float:
    is_scaled = text(config, "normalize_activations", source) == SCALED
    return number(config, "activation_normalization_factor", source, 1.0) if is_scaled else 1.0


def _wiring(tensors: Mapping[str, Tensor], config: Mapping[str, Any], reads: str, writes: str, folder: Path) -> Wiring:
    source, weights = folder / CONFIG, folder / WEIGHTS
    W_dec = matrix(tensors, "W_dec", weights)
    width = tensors["W_enc"].shape[1] if "W_enc" in tensors else W_dec.shape[1]
    architecture = text(config, "architecture", source)
    is_transcoder = "transcoder" in architecture
    sizes = {"d_in": width, "d_sae": W_dec.shape[0]} | ({"d_out": W_dec.shape[1]} if is_transcoder else {})
    for key, found in sizes.items():
        if (said := integer(config, key, source)) != found:
            raise UserError(f"{key!r} in {str(source)!r} is {said}, but the weights beside it have {found}")
    row_norm = ROW_NORMS.get(text(config, "normalize_activations", source), "none")
    if not is_transcoder:
        return Wiring((Port(reads, width),), (Port(reads, width),), row_norm=row_norm)
    if text(config, "normalize_activations", source) != "none" or flag(config, "apply_b_dec_to_input", source, False):
        raise UserError(f"{str(source)!r} normalises or centres what a transcoder reads, which SAELens does not undo")
    return transcoder(Place("", reads, writes), width, W_dec.shape[1], folder, skip="skip" in architecture)


def _settings(config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: Path) -> dict[str, Any]:
    """What the architecture of ours is built with; decoder rows have any norm there."""
    architecture = text(config, "architecture", source)
    if architecture == "temporal":
        return our_settings(config, tensors["W_dec"].shape[0], _temporal_scale(config, source), source)
    if architecture == "matching_pursuit":
        return {
            "k": integer(config, "max_iterations", source, tensors["W_dec"].shape[1]),
            "residual_threshold": max(0.0, number(config, "residual_threshold", source, 1e-2)),
            "stop_on_duplicate_support": flag(config, "stop_on_duplicate_support", source, True),
        }
    is_transcoder = "transcoder" in architecture
    settings = {
        "decoder_norm": "free",
        "centre": not is_transcoder and flag(config, "apply_b_dec_to_input", source, True),
    }
    if _OURS[architecture] == "relu":
        settings["variant"] = "april_2024"
    if architecture == "gated":
        settings["variant"] = "norm_weighted"
    if architecture in ("topk", "abstopk"):
        settings["k"] = integer(config, "k", source, 100)
    if architecture in ("batchtopk", "matryoshka_batchtopk"):
        settings["k"] = number(config, "k", source, 100.0)
    if architecture == "matryoshka_batchtopk":
        settings["prefixes"] = _prefixes(config, matrix(tensors, "W_dec", source).shape[0], source)
    return settings


def _prefixes(config: Mapping[str, Any], d_sae: int, source: Path) -> tuple[float, ...]:
    """The widths as shares of all latents; SAELens adds the last where it is missing."""
    widths = config.get("matryoshka_widths")
    if not isinstance(widths, list) or not all(type(width) is int for width in widths):
        raise UserError(f"'matryoshka_widths' in {str(source)!r} is {widths!r}, expected a list of whole numbers")
    return (*(width / d_sae for width in widths if width != d_sae), 1.0)
