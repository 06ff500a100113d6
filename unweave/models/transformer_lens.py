"""TransformerLens' names for places in a model, and the names of the same places here.

TransformerLens rewrites weights when it loads a model: its residual stream, and what is written to it, has no mean over
the width (in models with LayerNorm), and its ``hook_z`` no value bias. ``:centred`` and ``:unbiased`` behind a name
give these views of the model as it is.
"""

import re

POINTS = {
    "hook_resid_pre": "resid_pre",
    "ln1.hook_normalized": "ln1.normalized",
    "attn.hook_rot_q": "attn.q",
    "attn.hook_rot_k": "attn.k",
    "attn.hook_q": "attn.q_before_rotary",
    "attn.hook_k": "attn.k_before_rotary",
    "attn.hook_v": "attn.v",
    "attn.hook_attn_scores": "attn.scores",
    "attn.hook_pattern": "attn.pattern",
    "attn.hook_z": "attn.z",
    "hook_attn_out": "attn_out",
    "hook_resid_mid": "resid_mid",
    "hook_mlp_in": "resid_mid",  # the copy of the stream in front of the norm, not what the MLP module reads
    "ln2.hook_normalized": "ln2.normalized",
    "mlp.hook_in": "mlp_in",  # SAELens and circuit-tracer add this one to the models of TransformerLens
    "mlp.hook_pre": "mlp.pre",
    "mlp.hook_pre_linear": "mlp.pre_linear",
    "mlp.hook_post": "mlp.post",
    "hook_mlp_out": "mlp_out",
    "hook_resid_post": "resid_post",
}
"""Within a block."""
ENDS = {"hook_embed": "embed", "ln_final.hook_normalized": "ln_final.normalized"}
"""In front of the blocks and behind them."""


def canonical(name: str) -> str:
    """The name of a place in this library; a name that is none of TransformerLens' comes back as it is."""
    place, colon, options = name.partition(":")
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", place)
    if match and match[2] in POINTS:
        place = f"layers.{match[1]}.{POINTS[match[2]]}"
    return f"{ENDS.get(place, place)}{colon}{options}"
