"""Places in a model: `layers.6.resid_pre`, `layers.3.mlp_out`, classic TransformerLens names, or bare module paths.

A site is the tensor that enters or leaves one module. `attn_out` and `mlp_out` are what is added to the residual
stream, `attn.z` is the concatenated head outputs before the output projection, `mlp.post` the hidden activations before
the down projection (gate times up in gated MLPs), and `mlp_in` what the MLP module reads, after its norm.
"""

import re
from typing import Any, Literal, NamedTuple

from torch import nn

from unweave.errors import UserError, nearest

Side = Literal["in", "out", "stream"]
"""Entering a module, leaving it, or entering it while the block adds to the same tensor itself."""


class Site(NamedTuple):
    """A tensor at the edge of a module."""

    name: str
    """Canonical name, the same however the site was asked for."""
    module: str
    """Dotted path of the module in the Hugging Face model."""
    side: Side


class Family(NamedTuple):
    """Where a family keeps its blocks, its last norm, and each point of a block (a path within it and a side)."""

    blocks: str
    final_norm: str
    points: dict[str, tuple[str, Side]]


def _gpt2_points(output_projection: str) -> dict[str, tuple[str, Side]]:
    return {
        "resid_pre": ("", "in"),
        "attn.z": (output_projection, "in"),
        "attn_out": ("attn", "out"),
        "resid_mid": ("ln_2", "stream"),
        "mlp_in": ("mlp", "in"),
        "mlp.post": ("mlp.c_proj", "in"),
        "mlp_out": ("mlp", "out"),
        "resid_post": ("", "out"),
    }


_FAMILIES: dict[str, Family] = {
    "gpt2": Family("transformer.h", "transformer.ln_f", _gpt2_points("attn.c_proj")),
    "gpt_neo": Family("transformer.h", "transformer.ln_f", _gpt2_points("attn.attention.out_proj")),
    "llama": Family(
        "model.layers",
        "model.norm",
        {
            "resid_pre": ("", "in"),
            "attn.z": ("self_attn.o_proj", "in"),
            "attn_out": ("self_attn", "out"),
            "resid_mid": ("post_attention_layernorm", "stream"),
            "mlp_in": ("mlp", "in"),
            "mlp.post": ("mlp.down_proj", "in"),
            "mlp_out": ("mlp", "out"),
            "resid_post": ("", "out"),
        },
    ),
}
_SAME_LAYOUT = {"mistral": "llama", "qwen2": "llama", "qwen3": "llama"}
_TRANSFORMER_LENS = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "attn.hook_z": "attn.z",
    "mlp.hook_post": "mlp.post",
    "hook_mlp_in": "resid_mid",  # there the un-normalised copy of the stream, not what the MLP module reads
}


class SiteMap:
    """Resolves site names for one loaded model."""

    def __init__(self, model: nn.Module, model_type: str) -> None:
        self._model = model
        self._modules = {name for name, _ in model.named_modules() if name}
        self._family = _FAMILIES.get(_SAME_LAYOUT.get(model_type, model_type))
        self._model_type = model_type
        self.n_layers = 0
        if self._family is not None:
            prefix = self._family.blocks + "."
            self.n_layers = sum(1 for name in self._modules if re.fullmatch(re.escape(prefix) + r"\d+", name))

    def names(self) -> list[str]:
        """All named sites of this model, in order of depth."""
        points = self._family.points if self._family else {}
        return [f"layers.{layer}.{point}" for layer in range(self.n_layers) for point in points]

    def near(self, name: str) -> str:
        """A hint at sites and modules whose names are like this one, or nothing."""
        known = {*self.names(), *self._modules} - {name, name.removesuffix(":out"), name.removesuffix(":in")}
        return nearest(_canonical(name), sorted(known))

    def final_norm(self) -> Any:
        """The norm between the last block and the unembedding, or None for a family that is not known."""
        return self._model.get_submodule(self._family.final_norm) if self._family else None

    def resolve(self, name: str) -> Site:
        """The site called ``name``, in any of the three spellings."""
        canonical = _canonical(name)
        match = re.fullmatch(r"layers\.(0|[1-9][0-9]*)\.(.+)", canonical)
        if match and self._family and match[2] in self._family.points and int(match[1]) < self.n_layers:
            path, side = self._family.points[match[2]]
            block = f"{self._family.blocks}.{match[1]}"
            return Site(canonical, f"{block}.{path}" if path else block, side)
        path, _, side_name = name.partition(":")
        if path in self._modules and side_name in ("", "in", "out"):
            side = "in" if side_name == "in" else "out"
            return Site(f"{path}:{side}", path, side)
        raise UserError(self._unknown(name))

    def _unknown(self, name: str) -> str:
        layers = f"; its layers are 0 to {self.n_layers - 1}" if self.n_layers else ""
        return f"this {self._model_type} model has no site {name!r}{self.near(name)}{layers}"


def _canonical(name: str) -> str:
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    if match and match[2] in _TRANSFORMER_LENS:
        return f"layers.{match[1]}.{_TRANSFORMER_LENS[match[2]]}"
    return name
