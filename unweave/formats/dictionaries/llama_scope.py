"""Llama Scope (He et al. 2024, arXiv 2410.20526) and its successor for R1-Distill.

The first has ``hyperparams.json`` and ``checkpoints/final.safetensors`` with ``encoder.weight [L, D]``,
``encoder.bias``, ``decoder.weight [D, L]`` and ``decoder.bias``. With s = sqrt(D) / ``dataset_average_activation_norm``
at each end ("in", "out") and w the rows of decoder.weight s_in / s_out, where ``sparsity_include_decoder_norm``:

    h = (x encoder.weight^T + encoder.bias / s_in) |w|      f = h where h > ``jump_relu_threshold``
    y = f w / |w| + decoder.bias / s_out

So the one threshold is of activations in the model's units on decoder rows of norm 1, since the library folded both
before it measured the threshold (Language-Model-SAEs at its release of Llama Scope: ``from_config`` and
``post_process_topk_to_jumprelu_for_inference``). SAELens leaves out |w|, which is between 1.4 and 2, and finds fewer
active latents. Where ``apply_decoder_bias_to_pre_encoder``, which no published one has, x is less decoder.bias / s_out.

R1-Distill has ``config.json`` and ``sae_weights.safetensors`` with the same tensors and ``log_jumprelu_threshold [L]``,
which is of h |w| in the units of training; see ``openmoss.py``. If the file has no
``dataset_average_activation_norm.{hook}`` it cannot be read, since then nothing in it says how rows were scaled.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.formats.dictionaries import Place
from unweave.formats.dictionaries.assemble import assemble
from unweave.formats.dictionaries.config_file import choice, flag, number, peek, read_json_object, section, text
from unweave.formats.dictionaries.openmoss import Parts, finished, scale_of
from unweave.formats.dictionaries.whereabouts import either, folder_name, in_path, sae_or_transcoder
from unweave.formats.tensor_file import exactly, names_in, read_tensors, shaped

_AXES = {"encoder.weight": 2, "encoder.bias": 1, "decoder.weight": 2, "decoder.bias": 1}
_NORM = "dataset_average_activation_norm."


def recognises(path: Path) -> bool:
    """Whether this is a folder of either kind, or its tensors."""
    first, later = _files(path)
    if first.is_file():
        return "dataset_average_activation_norm" in peek(first.parent.parent / "hyperparams.json")
    return (
        later.is_file()
        and "hook_point_in" in peek(later.parent / "config.json")
        and "log_jumprelu_threshold" in (names_in(later))
    )


def read(path: Path, place: Place) -> dict[str, SparseCoder]:
    """The one coder of a folder."""
    first, later = _files(path)
    if first.is_file():
        return {folder_name(first.parent): _first(first, place)}
    return {folder_name(later): _later(later, place)}


def _first(file: Path, place: Place) -> SparseCoder:
    config_file = file.parent.parent / "hyperparams.json"
    config = read_json_object(config_file)
    tensors = read_tensors(file)
    exactly(tensors, _AXES, file)
    _check_shapes(tensors, file)
    _refuse_glu(config, config_file)
    choice(config, "act_fn", config_file, ("jumprelu", "topk"), "jumprelu")
    threshold = number(config, "jump_relu_threshold", config_file)
    if not threshold > 0:
        raise UserError(
            f"'jump_relu_threshold' in {str(config_file)!r} is {threshold}, expected more than 0; a TopK "
            "coder of this format has it after the library's conversion to JumpReLU"
        )
    s_in, s_out = _scales(config, config_file, tensors["encoder.weight"].shape[1])
    W_enc = tensors["encoder.weight"].float()
    W_dec = tensors["decoder.weight"].float().T * (s_in / s_out)
    b_enc, b_dec = tensors["encoder.bias"].float() / s_in, tensors["decoder.bias"].float() / s_out
    if flag(config, "sparsity_include_decoder_norm", config_file, True):
        norm = W_dec.norm(dim=1).clamp(min=1e-30)
        W_dec, W_enc, b_enc = W_dec / norm[:, None], W_enc * norm[:, None], b_enc * norm
    ours = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec}
    ours["threshold"] = torch.full_like(b_enc, threshold)
    place = either(either(place, _place(config, config_file)), Place(_model(file)))
    wiring = sae_or_transcoder(place, W_enc.shape[1], W_dec.shape[1], file)
    centre = flag(config, "apply_decoder_bias_to_pre_encoder", config_file, False)
    return assemble("jumprelu", {"centre": centre}, wiring, ours, place.model, file)


def _later(file: Path, place: Place) -> SparseCoder:
    config_file = file.parent / "config.json"
    config = read_json_object(config_file)
    tensors = read_tensors(file)
    norms = {name.removeprefix(_NORM): tensors.pop(name) for name in sorted(tensors) if name.startswith(_NORM)}
    exactly(tensors, {**_AXES, "log_jumprelu_threshold": 1}, file)
    _check_shapes(tensors, file)
    _refuse_glu(config, config_file)
    choice(config, "act_fn", config_file, ("jumprelu",), "jumprelu")
    if flag(config, "apply_decoder_bias_to_pre_encoder", config_file, False):
        raise UserError(
            f"{str(config_file)!r} subtracts the decoder's bias, which no published coder of this format does"
        )
    if choice(config, "norm_activation", config_file, ("dataset-wise", "inference"), "dataset-wise") == "inference":
        norms = {}
    found = _place(config, config_file)
    place = either(either(place, found), Place(_model(file)))
    hooks = found.site, found.target or found.site
    s_in, s_out = (scale_of(config, config_file, norms, hook, file) for hook in hooks)
    threshold = tensors["log_jumprelu_threshold"].float().exp()
    parts = Parts(
        tensors["encoder.weight"],
        tensors["encoder.bias"],
        tensors["decoder.weight"].T,
        tensors["decoder.bias"],
        threshold,
    )
    wiring = sae_or_transcoder(place, parts.W_enc.shape[1], parts.W_dec.shape[1], file)
    counts_norm = flag(config, "sparsity_include_decoder_norm", config_file, True)
    return finished("jumprelu", 0, counts_norm, parts, (s_in, s_out), wiring, place.model, file)


def _scales(config: dict[str, Any], config_file: Path, width: int) -> tuple[float, float]:
    choice(config, "norm_activation", config_file, ("dataset-wise",), "dataset-wise")
    norms = section(config, "dataset_average_activation_norm", config_file)
    read, written = (
        number(norms, "in", config_file),
        number(norms, "out", config_file, number(norms, "in", config_file)),
    )
    if not (read > 0 and written > 0):
        raise UserError(f"'dataset_average_activation_norm' in {str(config_file)!r} is {norms}, expected more than 0")
    return width**0.5 / read, width**0.5 / written


def _check_shapes(tensors: dict[str, Tensor], file: Path) -> None:
    n_latents, d_write = len(tensors["encoder.weight"]), len(tensors["decoder.bias"])
    per_latent = dict.fromkeys(("encoder.bias", "log_jumprelu_threshold"), (n_latents,))
    shaped(tensors, {**per_latent, "decoder.weight": (d_write, n_latents)}, file)


def _refuse_glu(config: dict[str, Any], config_file: Path) -> None:
    if flag(config, "use_glu_encoder", config_file, False):
        raise UserError(f"{str(config_file)!r} has a GLU encoder, which has no equal here")


def _place(config: dict[str, Any], config_file: Path) -> Place:
    site = text(config, "hook_point_in", config_file)
    target = text(config, "hook_point_out", config_file, site)
    return Place("", site, target if target != site else "")


def _model(file: Path) -> str:
    if in_path(r"Llama-Scope-R1-Distill", file):
        return "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"
    return "meta-llama/Llama-3.1-8B" if in_path(r"Llama3_1-8B-Base", file) else ""


def _files(path: Path) -> tuple[Path, Path]:
    """Where the tensors of the first kind and of the later kind would be."""
    if path.is_dir():
        return path / "checkpoints" / "final.safetensors", path / "sae_weights.safetensors"
    is_first = path.name == "final.safetensors"
    return (path, path / "none") if is_first else (path / "none", path)
