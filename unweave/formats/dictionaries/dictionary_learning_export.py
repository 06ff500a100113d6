"""Write a coder as dictionary_learning reads it, such that its activations are ours.

Their ``AutoEncoder`` is normalised when it is loaded, so ReLU coders whose decoder rows have other norms than 1 are
``AutoEncoderNew``. What a class always does to its input, or never, is undone in the encoder's bias.
"""

import io
import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unweave.coders import SparseCoder
from unweave.coders.batch_topk import BatchTopK, BatchTopKConfig
from unweave.coders.gated import Gated
from unweave.coders.jumprelu import JumpRelu
from unweave.coders.k_schedule import FallingKConfig
from unweave.coders.matryoshka import Matryoshka
from unweave.formats.dictionaries.disassemble import (
    architecture_of,
    cannot_hold,
    check_sites,
    encoder_bias,
    magnitude_bias,
    model_of,
    plain,
    thresholds_of,
)
from unweave.formats.files import write_atomically

_SUBMODULES = {"resid_post": "resid_post", "attn_out": "attention_out", "mlp_out": "mlp_out"}
_THEIRS = {
    "relu": "AutoEncoder",
    "p_anneal": "AutoEncoder",
    "gated": "GatedAutoEncoder",
    "jumprelu": "JumpReluAutoEncoder",
    "topk": "AutoEncoderTopK",
    "archetypal": "AutoEncoderTopK",
    "hierarchical_topk": "AutoEncoderTopK",
    "batch_topk": "BatchTopKSAE",
    "matryoshka": "MatryoshkaBatchTopKSAE",
}


def write(coder: SparseCoder, folder: Path) -> None:
    """Write ``ae.pt`` and ``config.json``; raises ``UserError`` for what dictionary_learning cannot hold."""
    library, ours = "dictionary_learning", architecture_of(coder)
    check_sites(coder, library)
    if ours not in _THEIRS:
        raise cannot_hold(library, f"a coder of type {ours}", f"types {', '.join(_THEIRS)}")
    if coder.wiring.kind != "sae":
        raise cannot_hold(library, f"a {coder.wiring.kind.replace('_', ' ')}", "coders that write what they read")
    if coder.wiring.row_norm != "none":
        raise cannot_hold(library, f"a coder with row_norm {coder.wiring.row_norm}", "coders of rows as they are")
    dict_class = _class(coder)
    buffer = io.BytesIO()
    torch.save(plain(_tensors(coder, dict_class)), buffer)
    write_atomically(folder / "ae.pt", buffer.getvalue())
    config = {"trainer": _trainer(coder, dict_class), "buffer": {"d_submodule": coder.d_model, "io": "out"}}
    write_atomically(folder / "config.json", json.dumps(config, indent=1) + "\n")


def _class(coder: SparseCoder) -> str:
    theirs = _THEIRS[architecture_of(coder)]
    if theirs != "AutoEncoder":
        return theirs
    norms = coder.decoder_norms()
    is_plain = coder.config.centre and torch.allclose(norms, torch.ones_like(norms))
    return "AutoEncoder" if is_plain else "AutoEncoderNew"


@torch.no_grad()
def _tensors(coder: SparseCoder, dict_class: str) -> dict[str, Tensor]:
    """The state dict; weights called W_ have a column per latent where Linear ones have a row, and the reverse."""
    linear = {"encoder.weight": coder.W_enc, "decoder.weight": coder.W_dec.T}
    if isinstance(coder, Gated):
        biases = {"gate_bias": encoder_bias(coder, centred=True), "mag_bias": magnitude_bias(coder, centred=True)}
        return linear | biases | {"r_mag": coder.r_mag, "decoder_bias": coder.b_dec}
    b_enc = encoder_bias(coder, centred=dict_class not in ("AutoEncoderNew", "JumpReluAutoEncoder"))
    if dict_class in ("AutoEncoder", "AutoEncoderNew"):
        name = "bias" if dict_class == "AutoEncoder" else "decoder.bias"
        return linear | {"encoder.bias": b_enc, name: coder.b_dec}
    bare = {"W_enc": coder.W_enc.T, "b_enc": b_enc, "W_dec": coder.W_dec, "b_dec": coder.b_dec}
    if isinstance(coder, JumpRelu):
        return bare | {"threshold": thresholds_of(coder)}
    threshold = coder.threshold if isinstance(coder, BatchTopK | Matryoshka) else torch.tensor(-1.0)
    counts = {"k": torch.tensor(_k(coder), dtype=torch.int32), "threshold": threshold}
    if isinstance(coder, Matryoshka):
        return bare | counts | {"group_sizes": torch.tensor(_group_sizes(coder))}
    return linear | counts | {"encoder.bias": b_enc, "b_dec": coder.b_dec}


def _trainer(coder: SparseCoder, dict_class: str) -> dict[str, Any]:
    site = coder.site
    match = re.fullmatch(r"layers\.(\d+)\.(\w+)", site.removesuffix(":out"))
    known = match is not None and match[2] in _SUBMODULES
    trainer: dict[str, Any] = {
        "dict_class": dict_class,
        "activation_dim": coder.d_model,
        "dict_size": coder.n_latents,
        "lm_name": model_of(coder),
        "layer": int(match[1]) if match else None,
        "submodule_name": f"{_SUBMODULES[match[2]]}_layer_{match[1]}" if match and known else site,
    }
    if isinstance(coder.config, FallingKConfig):
        trainer["k"] = _k(coder)
    if isinstance(coder, Matryoshka):
        trainer["group_sizes"] = _group_sizes(coder)
    return trainer


def _k(coder: SparseCoder) -> int:
    """k as a whole number, as which theirs is; where there is a threshold it has no effect after training."""
    assert isinstance(coder.config, FallingKConfig | BatchTopKConfig)
    return max(1, round(coder.config.k))


def _group_sizes(coder: Matryoshka) -> list[int]:
    """How many latents each prefix adds; one group where prefixes were drawn."""
    ends = [coder.n_latents] if coder.config.prefixes == "random" else coder.prefix_lengths(1.0)
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]
