"""Temporal SAEs between SAELens' tensors and ours, whose weights have its scale of rows and its factor 1 / (4 d_in).

There z = relu((s x - b_dec) W_enc / (4 d_in)), with s the constant by which rows are scaled, and W_enc the transpose of
W_dec where weights are tied. What is written is divided by s. ``attn_layers.{i}`` are linear maps: ``k_ctx`` and
``q_target`` to ``d_sae / bottleneck_factor``, ``v_ctx`` and ``c_proj`` to ``d_sae``. Without ``kval_topk``, or where
``sae_diff_type`` is ``relu``, all positive latents are kept.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unweave.coders.temporal import Temporal
from unweave.errors import UserError
from unweave.formats.dictionaries.assemble import matrix
from unweave.formats.dictionaries.config_file import choice, flag, integer
from unweave.formats.dictionaries.disassemble import cannot_hold

_EPSILON = 1e-6
"""What SAELens adds to a norm, of scaled rows."""
_MAPS = {"k_ctx": "key", "q_target": "query", "v_ctx": "value", "c_proj": "out"}
_THEIRS = {ours: theirs for theirs, ours in _MAPS.items()}


def our_tensors(tensors: Mapping[str, Tensor], scale: float, source: Path, *, tied: bool) -> dict[str, Tensor]:
    """Tensors by SAELens' names as ours; raises ``UserError`` where there is an encoder in spite of tied weights."""
    W_dec = matrix(tensors, "W_dec", source).float()
    if not scale > 0:
        raise UserError(f"{str(source)!r} scales rows by {scale}, expected a number above 0")
    if tied == ("W_enc" in tensors):
        what = "tied, and has W_enc" if tied else "not tied, and lacks W_enc"
        raise UserError(f"{str(source)!r} says that its weights are {what}; fetch or copy it again")
    W_enc = W_dec if tied else matrix(tensors, "W_enc", source).float().T
    found = {_renamed(name, "attn_layers", "layers", _MAPS): tensor for name, tensor in tensors.items()}
    found |= {"W_enc": W_enc * (scale / (4 * W_dec.shape[1])), "W_dec": W_dec / scale}
    if "b_dec" in found:
        found["b_dec"] = found["b_dec"].float() / scale
    return found


def our_settings(config: Mapping[str, Any], d_sae: int, scale: float, source: Path) -> dict[str, Any]:
    """What our coder is built with, given the settings by the names that SAELens and the original have."""
    selects = choice(config, "sae_diff_type", source, ("relu", "topk"), "topk") == "topk"
    k = integer(config, "kval_topk", source) if selects and config.get("kval_topk") is not None else None
    if k is not None and k < 1:
        raise UserError(f"'kval_topk' in {str(source)!r} is {k}, expected at least 1")
    bottleneck = integer(config, "bottleneck_factor", source, 64)
    if bottleneck < 1 or d_sae % bottleneck:
        raise UserError(f"'bottleneck_factor' in {str(source)!r} is {bottleneck}, expected a divisor of {d_sae}")
    return {
        "k": k or 0,
        "n_layers": integer(config, "n_attn_layers", source, 1),
        "n_heads": integer(config, "n_heads", source, 8),
        "d_key": d_sae // bottleneck,
        "epsilon": _EPSILON / scale,
        "centre": flag(config, "apply_b_dec_to_input", source, True),
    }


def their_settings(coder: Temporal) -> dict[str, Any]:
    """What ``cfg.json`` says of temporal coders alone; raises ``UserError`` for what has no place there."""
    config = coder.config
    if coder.n_latents % config.d_key:
        what = f"keys of width {config.d_key} for {coder.n_latents} latents"
        raise cannot_hold("SAELens", what, "widths that divide the number of latents")
    settings: dict[str, Any] = {
        "n_heads": config.n_heads,
        "n_attn_layers": config.n_layers,
        "bottleneck_factor": coder.n_latents // config.d_key,
        "sae_diff_type": "topk" if config.k else "relu",
        "kval_topk": config.k or None,
        "tied_weights": False,
        "activation_normalization_factor": _scale(coder),
    }
    if _scale(coder) != 1:
        if coder.wiring.row_norm != "none":
            raise cannot_hold("SAELens", "temporal coders that norm and scale rows", "those that do one of both")
        settings["normalize_activations"] = "constant_scalar_rescale"
    return settings


@torch.no_grad()
def their_tensors(coder: Temporal) -> dict[str, Tensor]:
    """The tensors as SAELens has them, with weights that are not tied."""
    scale = _scale(coder)
    found = {_renamed(name, "layers", "attn_layers", _THEIRS): tensor for name, tensor in coder.state_dict().items()}
    W_enc = coder.W_enc.T * (4 * coder.d_model / scale)
    return found | {"W_enc": W_enc, "W_dec": coder.W_dec * scale, "b_dec": coder.b_dec * scale}


def _scale(coder: Temporal) -> float:
    """By what rows are scaled, so that their epsilon is ours."""
    return _EPSILON / coder.config.epsilon


def _renamed(name: str, start: str, other_start: str, maps: Mapping[str, str]) -> str:
    """``attn_layers.0.k_ctx.weight`` as ``layers.0.key.weight``, or back; other names as they are."""
    parts = name.split(".")
    if len(parts) != 4 or parts[0] != start:
        return name
    return ".".join((other_start, parts[1], maps.get(parts[2], parts[2]), parts[3]))
