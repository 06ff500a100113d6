"""Llamascopium (OpenMOSS, formerly Language-Model-SAEs): a folder with ``config.json`` and ``sae_weights.safetensors``.

SAEs and transcoders have ``W_E [D, L]``, ``b_E``, ``W_D [L, D]`` and, with ``use_decoder_bias``, ``b_D``; JumpReLU adds
``activation_function.log_jumprelu_threshold [L]``. b_D is not subtracted from x. With s = sqrt(D) / norm at each end,
where norm is ``dataset_average_activation_norm.{hook}`` (``norm_activation="dataset-wise"``), that of each row
(``token-wise``), or s = 1 (``inference``):

    h = s_in x W_E + b_E      f = h g(h |w|)      y = (f W_D + b_D) / s_out

where g is 1 for what ``act_fn`` keeps and w the rows of W_D if ``sparsity_include_decoder_norm``, else |w| = 1.

Here activations are f / s_in, so that they are in the model's units. Where k of them are kept and the norm counts,
decoder rows have norm 1 and activations are f |w| / s_in. A fixed s is folded into the weights; ``token-wise`` becomes
the wiring's row norm, and needs one site. ``batchtopk`` keeps k of each row: the file has no threshold, and this is
what the library does to a row on its own. Folding the norms in Llamascopium itself leaves thresholds in the units of
training; that is not followed here.

Crosscoders have ``W_E [S, D, L]``, ``b_E [S, L]``, ``W_D [S, L, D]``, ``b_D [S, D]`` and sum h over ``hook_points``.
Each site gates by its own |w|, so only ReLU, where that changes nothing, has one activation for all sites; activations
are f. GLU encoders, Lorsa, MOLT and its own cross-layer transcoders have no equal here and are refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unweave.coders import Port, SparseCoder, Wiring
from unweave.coders.wiring import RowNorm
from unweave.errors import UserError
from unweave.formats.dictionaries import Place
from unweave.formats.dictionaries.assemble import assemble
from unweave.formats.dictionaries.config_file import choice, flag, integer, peek, read_json_object, text, texts
from unweave.formats.dictionaries.whereabouts import either, folder_name, sae_or_transcoder
from unweave.formats.tensor_file import exactly, names_in, read_tensors, shaped, single_value

_NORM = "dataset_average_activation_norm."
_THRESHOLD = "activation_function.log_jumprelu_threshold"
_KINDS = ("relu", "jumprelu", "topk", "batchtopk")


class Parts(NamedTuple):
    """An SAE or transcoder as it was trained, in our orientation."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    threshold: Tensor | None
    """Of h |w| in the units of training."""


def recognises(path: Path) -> bool:
    """Whether this is a folder, or a file of one, whose config is Llamascopium's."""
    file = _file(path)
    config = peek(file.parent / "config.json") if file.is_file() else {}
    kind = isinstance(config.get("sae_type"), str)
    return (
        kind and "d_model" in config and bool({"W_E", "W_Q"} & names_in(file) or config["sae_type"] in ("molt", "clt"))
    )


def read(path: Path, place: Place) -> dict[str, SparseCoder]:
    """The one coder of a folder."""
    file = _file(path)
    config_file = file.parent / "config.json"
    config = read_json_object(config_file)
    kind = text(config, "sae_type", config_file)
    if kind not in ("sae", "crosscoder"):
        raise UserError(
            f"{str(file)!r} is a {kind!r} of Llamascopium, which has no equal here; only SAEs, transcoders "
            "and crosscoders do"
        )
    if flag(config, "use_glu_encoder", config_file, False):
        raise UserError(f"{str(file)!r} has a GLU encoder, which has no equal here")
    tensors = read_tensors(file)
    norms = {name.removeprefix(_NORM): tensors.pop(name) for name in sorted(tensors) if name.startswith(_NORM)}
    if kind == "crosscoder":
        return {folder_name(file): _crosscoder(config, config_file, tensors, norms, place, file)}
    return {folder_name(file): _single(config, config_file, tensors, norms, place, file)}


def scale_of(config: Mapping[str, Any], config_file: Path, norms: Mapping[str, Tensor], hook: str, file: Path) -> float:
    """The factor s of a site, where it is the same for all rows."""
    kind = choice(config, "norm_activation", config_file, ("dataset-wise", "token-wise", "inference"), "dataset-wise")
    if kind != "dataset-wise":
        return 1.0
    if hook not in norms:
        raise UserError(f"{str(file)!r} lacks {_NORM + hook!r}, by which rows were scaled; it cannot be read exactly")
    norm = single_value(norms[hook], _NORM + hook, file)
    if not norm > 0:
        raise UserError(f"{_NORM + hook!r} in {str(file)!r} is {norm}, expected more than 0; it was never measured")
    return integer(config, "d_model", config_file) ** 0.5 / norm


def finished(
    kind: str,
    k: int,
    counts_norm: bool,
    parts: Parts,
    scales: tuple[float, float],
    wiring: Wiring,
    model: str,
    file: Path,
) -> SparseCoder:
    """The coder for rows as they are, given the factors by which rows were scaled at both ends."""
    s_in, s_out = scales
    W_enc, b_enc = parts.W_enc.float(), parts.b_enc.float() / s_in
    W_dec, b_dec = parts.W_dec.float() * (s_in / s_out), parts.b_dec.float() / s_out
    norm = parts.W_dec.float().norm(dim=1) if counts_norm else torch.ones(len(W_dec))
    settings: dict[str, Any] = {"centre": False}
    ours = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec}
    if kind == "relu":
        return assemble("relu", {**settings, "variant": "april_2024"}, wiring, ours, model, file)
    if kind == "jumprelu":
        if parts.threshold is None:
            raise UserError(f"{str(file)!r} has no threshold for each latent, which act_fn 'jumprelu' needs")
        # a latent that writes nothing passes no threshold; one that is not finite is for assemble to refuse
        ours["threshold"] = torch.where(norm > 0, parts.threshold / (s_in * norm), parts.threshold.sign() * 1e30)
        return assemble("jumprelu", settings, wiring, ours, model, file)
    if counts_norm:
        if not norm.all():
            raise UserError(f"{str(file)!r} has latents that write nothing; their norm cannot be folded")
        scaled = {"W_enc": W_enc * norm[:, None], "b_enc": b_enc * norm, "W_dec": W_dec / norm[:, None]}
        ours |= scaled
    return assemble("topk", {**settings, "k": k, "decoder_norm": "free"}, wiring, ours, model, file)


def _single(
    config: dict[str, Any],
    config_file: Path,
    tensors: dict[str, Tensor],
    norms: dict[str, Tensor],
    place: Place,
    file: Path,
) -> SparseCoder:
    has_bias = flag(config, "use_decoder_bias", config_file, True)
    exactly(tensors, {"W_E": 2, "b_E": 1, "W_D": 2, **({"b_D": 1} if has_bias else {})}, file, **{_THRESHOLD: 1})
    n_latents, d_write = tensors["W_D"].shape
    per_latent = {"W_E": (tensors["W_E"].shape[0], n_latents), "b_E": (n_latents,), _THRESHOLD: (n_latents,)}
    shaped(tensors, {**per_latent, "b_D": (d_write,)}, file)
    hooks = text(config, "hook_point_in", config_file), text(config, "hook_point_out", config_file)
    found = Place("", hooks[0], hooks[1] if hooks[1] != hooks[0] else "")
    place = either(place, found)
    wiring = sae_or_transcoder(place, tensors["W_E"].shape[0], tensors["W_D"].shape[1], file)
    wiring = Wiring(wiring.reads, wiring.writes, row_norm=_row_norm(config, config_file, wiring))
    log_threshold = tensors.get(_THRESHOLD)
    b_dec = tensors.get("b_D", torch.zeros(tensors["W_D"].shape[1]))
    threshold = None if log_threshold is None else log_threshold.float().exp()
    parts = Parts(tensors["W_E"].T, tensors["b_E"], tensors["W_D"], b_dec, threshold)
    scales = [scale_of(config, config_file, norms, hook, file) for hook in hooks]
    kind = choice(config, "act_fn", config_file, _KINDS)
    counts_norm = flag(config, "sparsity_include_decoder_norm", config_file, True)
    k = integer(config, "top_k", config_file, 0)
    return finished(kind, k, counts_norm, parts, (scales[0], scales[1]), wiring, place.model, file)


def _crosscoder(
    config: dict[str, Any],
    config_file: Path,
    tensors: dict[str, Tensor],
    norms: dict[str, Tensor],
    place: Place,
    file: Path,
) -> SparseCoder:
    exactly(tensors, {"W_E": 3, "b_E": 2, "W_D": 3, "b_D": 2}, file, **{_THRESHOLD: 1})
    if (kind := choice(config, "act_fn", config_file, _KINDS)) != "relu":
        raise UserError(
            f"{str(file)!r} is a crosscoder with act_fn {kind!r}, whose sites gate a latent each on its own; "
            "here a latent has one activation for all sites"
        )
    if choice(config, "norm_activation", config_file, ("dataset-wise", "inference"), "dataset-wise") == "inference":
        norms = {}
    hooks = texts(config, "hook_points", config_file)
    n_sites, width, n_latents = tensors["W_E"].shape
    if len(hooks) != n_sites or len(set(hooks)) != n_sites:
        raise UserError(f"{str(file)!r} has tensors of {n_sites} sites, its config names {hooks}")
    shapes = {"b_E": (n_sites, n_latents), "W_D": (n_sites, n_latents, width), "b_D": (n_sites, width)}
    shaped(tensors, shapes, file)
    scales = [scale_of(config, config_file, norms, hook, file) for hook in hooks]
    s = torch.tensor(scales)[:, None, None]
    ours = {
        "W_enc": (tensors["W_E"].float() * s).permute(2, 0, 1).flatten(1),
        "b_enc": tensors["b_E"].float().sum(0),
        "W_dec": (tensors["W_D"].float() / s).permute(1, 0, 2).flatten(1),
        "b_dec": (tensors["b_D"].float() / s[:, 0]).flatten(),
    }
    wiring = Wiring.crosscoder(*(Port(hook, width) for hook in hooks))
    return assemble("relu", {"variant": "april_2024", "centre": False}, wiring, ours, place.model, file)


def _row_norm(config: dict[str, Any], config_file: Path, wiring: Wiring) -> RowNorm:
    if text(config, "norm_activation", config_file, "dataset-wise") != "token-wise":
        return "none"
    if not wiring.writes_what_it_reads:
        raise UserError(
            f"{str(config_file)!r} has norm_activation 'token-wise' for a transcoder, whose output was "
            "scaled by a norm that is not known when it is used"
        )
    return "sqrt_width"


def _file(path: Path) -> Path:
    return path / "sae_weights.safetensors" if path.is_dir() else path
