"""What ``cfg.json`` of SAELens says: configs older than version 6 in the terms of version 6, and where an SAE belongs.

Before version 6 the config is flat, ``activation_fn_str`` makes a ``standard`` SAE a TopK one, and
``normalize_activations`` may be true or false. Site names are TransformerLens', such as ``blocks.8.hook_resid_pre``, or
a module's path where ``model_class_name`` is ``AutoModelForCausalLM``.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unweave.coders.wiring import RowNorm
from unweave.errors import UserError
from unweave.formats.dictionaries import Place
from unweave.formats.dictionaries.config_file import choice, section, text

ROW_NORMS: dict[str, RowNorm] = {"layer_norm": "layer_norm", "constant_norm_rescale": "sqrt_width"}
"""What is done to each row on its own, by SAELens' name."""
NORMS = ("none", "expected_average_only_in", *ROW_NORMS, "covariance_whitening")
SCALED = "constant_scalar_rescale"
"""What only a temporal SAE may do to rows: multiply them by ``activation_normalization_factor``."""
HUGGING_FACE = "AutoModelForCausalLM"
"""``model_class_name`` of a model whose sites are the outputs of its modules, by their paths."""
_RENAMED = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
_ABOUT_THE_MODEL = (
    "model_name",
    "hook_name",
    "hook_name_out",
    "hook_head_index",
    "model_class_name",
    "model_from_pretrained_kwargs",
    "norm_scaling_factor",
    "prepend_bos",
)
_ON_THE_STREAM = re.compile(r"hook_(embed|pos_embed|resid_pre|resid_mid|resid_post|attn_out|mlp_out|attn_in|mlp_in)$")
"""Sites whose rows lose their mean by ``center_writing_weights``."""
_POINTS = {
    "resid_pre": "hook_resid_pre",
    "ln1.normalized": "ln1.hook_normalized",
    "attn.q": "attn.hook_rot_q",
    "attn.q_before_rotary": "attn.hook_q",
    "attn.k": "attn.hook_rot_k",
    "attn.k_before_rotary": "attn.hook_k",
    "attn.v": "attn.hook_v",
    "attn.z": "attn.hook_z",
    "attn_out": "hook_attn_out",
    "resid_mid": "hook_resid_mid",
    "ln2.normalized": "ln2.hook_normalized",
    "mlp_in": "mlp.hook_in",
    "mlp.pre": "mlp.hook_pre",
    "mlp.pre_linear": "mlp.hook_pre_linear",
    "mlp.post": "mlp.hook_post",
    "mlp_out": "hook_mlp_out",
    "resid_post": "hook_resid_post",
}
"""What SAELens hooks within a block, by our names."""
_ENDS = {"embed": "hook_embed", "ln_final.normalized": "ln_final.hook_normalized"}
_OPTIONS = {"centred": "center_writing_weights", "unbiased": "fold_value_biases"}
"""How SAELens makes a model whose sites are what an option of ours makes of them."""


class Hook(NamedTuple):
    """A site as SAELens says it."""

    name: str
    model_class: str
    model_settings: dict[str, bool]


def as_of_version_6(config: dict[str, Any], source: Path) -> dict[str, Any]:
    """The config as version 6 would have written it; raises ``UserError`` for what changes codes in an unknown way."""
    config = dict(config)
    metadata = dict(section(config, "metadata", source, {}))
    if not _is_version_6(config.get("sae_lens_version") or metadata.get("sae_lens_version")):
        config = {_RENAMED.get(key, key): value for key, value in config.items()}
        config.setdefault("architecture", "standard")
        _choose_activation(config, source)
        if isinstance(config.get("normalize_activations"), bool):
            config["normalize_activations"] = "expected_average_only_in" if config["normalize_activations"] else "none"
    config["metadata"] = metadata | {key: config[key] for key in _ABOUT_THE_MODEL if key in config}
    norms = ("none", *ROW_NORMS, SCALED) if config.get("architecture") == "temporal" else NORMS
    config["normalize_activations"] = choice(config, "normalize_activations", source, norms, "none")
    return config


def place_of(config: Mapping[str, Any], place: Place, source: Path) -> tuple[str, str, str]:
    """The model, the site that is read and the one that is written."""
    metadata = section(config, "metadata", source)
    model = place.model or text(metadata, "model_name", source, "")
    reads = place.site or _site(metadata, "hook_name", source)
    if "transcoder" not in text(config, "architecture", source):
        return model, reads, reads
    return model, reads, place.target or _site(metadata, "hook_name_out", source)


def hook_of(site: str) -> Hook:
    """A site of ours as SAELens says it; raises ``UserError`` where it has no name for it."""
    name, _, option = site.partition(":")
    if option not in ("", "out", *_OPTIONS):
        raise UserError(f"SAELens has no name for the site {site!r}; it hooks what leaves a module")
    match = re.fullmatch(r"layers\.(\d+)\.(.+)", name)
    name = f"blocks.{match[1]}.{_POINTS[match[2]]}" if match and match[2] in _POINTS else _ENDS.get(name, name)
    settings = {_OPTIONS[option]: True} if option in _OPTIONS else {}
    return Hook(name, "HookedTransformer" if "hook_" in name else HUGGING_FACE, settings)


def _site(metadata: Mapping[str, Any], key: str, source: Path) -> str:
    name = text(metadata, key, source, "")
    if metadata.get("hook_head_index") is not None:
        head = metadata["hook_head_index"]
        raise UserError(f"{str(source)!r} reads head {head} of {name!r} alone, for which there is no site; give --site")
    if metadata.get("model_class_name") == HUGGING_FACE and name:
        return f"{name}:out"
    made = section(metadata, "model_from_pretrained_kwargs", source, {})
    if name.endswith(("hook_z", "hook_v")) and made.get("refactor_factored_attn_matrices"):
        raise UserError(f"{str(source)!r} reads {name!r} of a model whose heads were refactored, which has no site")
    if name.endswith("hook_z") and made.get("fold_value_biases"):
        return f"{name}:unbiased"
    return f"{name}:centred" if made.get("center_writing_weights") and _ON_THE_STREAM.search(name) else name


def _is_version_6(version: Any) -> bool:
    major = re.match(r"\d+", version) if isinstance(version, str) else None
    return major is not None and int(major[0]) >= 6


def _choose_activation(config: dict[str, Any], source: Path) -> None:
    """In old configs the activation says what the architecture is."""
    activation = text(config, "activation_fn", source, "relu").lower()
    if activation == "topk":
        config["architecture"] = "topk"
        config["k"] = section(config, "activation_fn_kwargs", source, {}).get("k")
        if config["k"] is None:
            raise UserError(f"{str(source)!r} has the activation topk but no activation_fn_kwargs.k; say how many")
    elif activation != "relu":
        raise UserError(f"{str(source)!r} has the activation {activation!r}, expected relu or topk; SAELens 6 drops it")
