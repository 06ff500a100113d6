"""Write a coder as SAELens 6 reads it: what each of our architectures is there, and what it has no place for.

Every kind of TopK coder is ``topk``, since its codes are; coders with thresholds, of one latent or of all, are
``jumprelu``, which is how SAELens itself saves BatchTopK SAEs that are finished.
"""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from unweave.coders import SparseCoder
from unweave.coders.batch_topk import BatchTopK
from unweave.coders.gated import Gated
from unweave.coders.jumprelu import JumpRelu
from unweave.coders.k_schedule import FallingKConfig
from unweave.coders.matching_pursuit import MatchingPursuit
from unweave.coders.matryoshka import Matryoshka
from unweave.coders.temporal import Temporal
from unweave.formats.dictionaries.disassemble import (
    architecture_of,
    cannot_hold,
    check_sites,
    model_of,
    plain,
    thresholds_of,
)
from unweave.formats.dictionaries.saelens_config import ROW_NORMS, hook_of
from unweave.formats.dictionaries.saelens_temporal import their_settings, their_tensors
from unweave.formats.files import write_atomically

VERSION = "6.54.12"
"""The version of SAELens whose files these are."""
_SAES = {
    "relu": "standard",
    "p_anneal": "standard",
    "gated": "gated",
    "topk": "topk",
    "archetypal": "topk",
    "hierarchical_topk": "topk",
    "abs_topk": "abstopk",
    "jumprelu": "jumprelu",
    "batch_topk": "jumprelu",
    "matryoshka": "jumprelu",
    "matching_pursuit": "matching_pursuit",
    "temporal": "temporal",
}
_TRANSCODERS = {
    "relu": "transcoder",
    "p_anneal": "transcoder",
    "jumprelu": "jumprelu_transcoder",
    "batch_topk": "jumprelu_transcoder",
    "matryoshka": "jumprelu_transcoder",
}


def write(coder: SparseCoder, folder: Path) -> None:
    """Write ``cfg.json`` and ``sae_weights.safetensors``; raises ``UserError`` for what SAELens cannot hold."""
    check_sites(coder, "SAELens")
    ours, kind = architecture_of(coder), coder.wiring.kind
    known = _SAES if kind == "sae" else _TRANSCODERS
    if ours not in known:
        raise cannot_hold("SAELens", f"{_kind(kind)} of type {ours}", f"{_kind(kind)} of types {', '.join(known)}")
    if kind != "sae" and coder.wiring.row_norm != "none":
        raise cannot_hold("SAELens", f"{_kind(kind)} that normalises rows", "such SAEs only")
    theirs = known[ours].replace("transcoder", kind) if kind != "sae" else known[ours]
    config = _config(coder, theirs)
    data = safetensors.torch.save(plain(_tensors(coder)))
    write_atomically(folder / "sae_weights.safetensors", data)
    write_atomically(folder / "cfg.json", json.dumps(config, indent=1) + "\n")


def _config(coder: SparseCoder, architecture: str) -> dict[str, Any]:
    wiring = coder.wiring
    norms = {"none": "none"} | {ours: theirs for theirs, ours in ROW_NORMS.items()}
    hook = hook_of(wiring.reads[0].site)
    config = {
        "architecture": architecture,
        "d_in": wiring.d_read,
        "d_sae": coder.n_latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": coder.config.centre,
        "normalize_activations": norms[wiring.row_norm],
        "reshape_activations": "hook_z" if hook.name.endswith("hook_z") and wiring.kind == "sae" else "none",
        "metadata": {
            "sae_lens_version": VERSION,
            "model_name": model_of(coder),
            "model_class_name": hook.model_class,
            "prepend_bos": True if coder.origin is None else coder.origin.prepend_bos,
            "model_from_pretrained_kwargs": hook.model_settings,
            "hook_name": hook.name,
            "hook_head_index": None,
            "training_architecture": architecture_of(coder),
        },
    }
    if wiring.kind != "sae":
        config["d_out"] = wiring.d_write
        config["metadata"]["hook_name_out"] = hook_of(wiring.writes[0].site).name
    if isinstance(coder.config, FallingKConfig) and architecture in ("topk", "abstopk"):
        config |= {"k": coder.config.k, "rescale_acts_by_decoder_norm": False}
    if isinstance(coder, MatchingPursuit):
        config["residual_threshold"] = coder.residual_threshold.item()
        config["max_iterations"] = coder.config.k
        config["stop_on_duplicate_support"] = coder.config.stop_on_duplicate_support
    return config | their_settings(coder) if isinstance(coder, Temporal) else config


@torch.no_grad()
def _tensors(coder: SparseCoder) -> dict[str, Tensor]:
    if isinstance(coder, Temporal):
        return their_tensors(coder)
    tensors: dict[str, Tensor] = {"W_dec": coder.W_dec, "b_dec": coder.b_dec}
    if isinstance(coder, MatchingPursuit):
        return tensors
    tensors["W_enc"] = coder.W_enc.T
    if isinstance(coder, Gated):
        return tensors | {"b_gate": coder.b_enc, "b_mag": coder.b_mag, "r_mag": coder.r_mag}
    tensors["b_enc"] = coder.b_enc
    if isinstance(coder, BatchTopK | JumpRelu | Matryoshka):
        tensors["threshold"] = thresholds_of(coder)
    if coder.W_skip is not None:
        tensors["W_skip"] = coder.W_skip
    return tensors


def _kind(kind: str) -> str:
    return {"sae": "an SAE", "transcoder": "a transcoder", "skip_transcoder": "a skip transcoder"}[kind]
