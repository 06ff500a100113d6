"""Coders of ours that other libraries have read: what each format can hold, in every form that it can hold it in.

The name of a case is an architecture, and after a hyphen what is special about it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from unweave.coders import Origin, Port, SparseCoder, Wiring, architecture

WIDTH, LATENTS = 6, 15
SITE = "layers.3.resid_pre"
SAE = Wiring.sae(WIDTH, SITE)
NARROWER = Wiring.transcoder(Port("layers.3.mlp_in", WIDTH), Port("layers.3.mlp_out", 5))
SKIP_NARROWER = Wiring.transcoder(Port("layers.3.mlp_in", WIDTH), Port("layers.3.mlp_out", 5), skip=True)
TRANSCODER = Wiring.transcoder(Port("layers.3.mlp_in", WIDTH), Port("layers.3.mlp_out", WIDTH))
SKIP_TRANSCODER = Wiring.transcoder(Port("layers.3.mlp_in", WIDTH), Port("layers.3.mlp_out", WIDTH), skip=True)
SKIP_SAE = Wiring.transcoder(Port(SITE, WIDTH), Port(SITE, WIDTH), skip=True)


class Case(NamedTuple):
    """What a coder is made of."""

    settings: Mapping[str, Any] = MappingProxyType({})
    wiring: Wiring = SAE
    unit_rows: bool = False
    """Whether decoder rows have norm 1; in the others they have norms of their own."""


K = {"k": 4}
FREE = {"variant": "april_2024"}
CENTRED = FREE | {"centre": True}
UNCENTRED = {"centre": False}
HEADS = {"n_heads": 3, "d_key": 3}
LIKE_TOPK = {
    "topk": Case(K),
    "topk-not_centred": Case(K | UNCENTRED),
    "archetypal": Case(K),
    "hierarchical_topk": Case(K),
}
CASES: dict[str, dict[str, Case]] = {
    "saelens": LIKE_TOPK
    | {
        "relu": Case(CENTRED),
        "relu-not_centred": Case(FREE),
        "relu-layer_norm": Case(CENTRED, Wiring(SAE.reads, SAE.writes, row_norm="layer_norm")),
        "relu-heads": Case(CENTRED, Wiring.sae(WIDTH, "layers.3.attn.z")),
        "relu-centred_stream": Case(CENTRED, Wiring.sae(WIDTH, "blocks.3.hook_resid_pre:centred")),
        "relu-module": Case(CENTRED, Wiring.sae(WIDTH, "model.layers.3:out")),
        "relu-transcoder": Case(FREE, NARROWER),
        "relu-skip_transcoder": Case(FREE, SKIP_NARROWER),
        "p_anneal": Case(unit_rows=True),
        "gated": Case(),
        "gated-not_centred": Case(UNCENTRED),
        "topk-sqrt_width": Case(K, Wiring(SAE.reads, SAE.writes, row_norm="sqrt_width")),
        "abs_topk": Case(K),
        "jumprelu": Case(),
        "jumprelu-anthropic": Case({"variant": "anthropic", "centre": True}),
        "jumprelu-transcoder": Case({}, NARROWER),
        "jumprelu-skip_transcoder": Case({}, SKIP_NARROWER),
        "batch_topk": Case({"k": 3.5}),
        "batch_topk-transcoder": Case(K, NARROWER),
        "matryoshka": Case(K),
        "matching_pursuit": Case({"k": 5}, unit_rows=True),
        "matching_pursuit-stops": Case(
            {"k": 9, "residual_threshold": 0.5, "stop_on_duplicate_support": True}, unit_rows=True
        ),
        "temporal": Case(K | HEADS),
        "temporal-scaled": Case({"k": 0, "n_layers": 2, "epsilon": 1e-6 / 0.3} | HEADS),
        "temporal-not_centred": Case(K | {"n_layers": 2} | HEADS | UNCENTRED),
        "temporal-sqrt_width": Case(K | HEADS, Wiring(SAE.reads, SAE.writes, row_norm="sqrt_width")),
    },
    "sparsify": LIKE_TOPK
    | {
        "topk-transcoder": Case(K, TRANSCODER),
        "topk-skip_transcoder": Case(K | {"multi_k": 4}, SKIP_TRANSCODER),
        "topk-skip": Case(K, SKIP_SAE),
        "topk-block": Case(K, Wiring.sae(WIDTH, "layers.3.resid_post")),
        "group_max": Case({"k": 5}),
        "group_max-transcoder": Case({"k": 5}, TRANSCODER),
    },
    "dictionary_learning": LIKE_TOPK
    | {
        "relu": Case(unit_rows=True),
        "relu-free_norms": Case(CENTRED),
        "relu-not_centred": Case({"centre": False}, unit_rows=True),
        "p_anneal": Case(unit_rows=True),
        "gated": Case(),
        "gated-not_centred": Case(UNCENTRED),
        "jumprelu": Case(),
        "jumprelu-centred": Case({"variant": "anthropic", "centre": True}),
        "batch_topk": Case({"k": 3.5}, Wiring.sae(WIDTH, "layers.3.mlp_out")),
        "matryoshka": Case(K, Wiring.sae(WIDTH, "model.layers.3:out")),
        "matryoshka-random": Case(K | {"prefixes": "random"}),
    },
}


def coder(format: str, name: str) -> SparseCoder:
    """The coder of a case, with the same numbers every time."""
    case = CASES[format][name]
    cls = architecture(name.partition("-")[0])
    made = cls(cls.Config(n_latents=LATENTS, **case.settings), case.wiring)
    generator = torch.Generator().manual_seed(100 * len(name) + ord(name[-1]))
    with torch.no_grad():
        for key, tensor in sorted(made.state_dict().items()):
            drawn = 0.5 * torch.randn(tensor.shape, generator=generator)
            if "threshold" in key:
                drawn = 0.2 + drawn.abs()
            if key not in ("alpha", "power", "residual_threshold"):
                tensor.copy_(drawn)
        if case.unit_rows:
            made.W_dec.div_(made.W_dec.norm(dim=1, keepdim=True))
    made.origin = Origin("some/model")
    return made.eval().requires_grad_(False)
