"""Tiny random models of many families, and what is found in each."""

import functools
from typing import Any

import torch
import transformers
from torch import nn

from unweave.models.language_model import LanguageModel
from unweave.models.layout import POINTS
from unweave.models.proof import Proof, prove

CONTEXT = 63
_DECODER = {"vocab_size": 100, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
_TOKENS = {"pad_token_id": None, "bos_token_id": 0, "eos_token_id": 0}
_LLAMA = {**_DECODER, **_TOKENS, "intermediate_size": 50, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT}
_HEADS = {"head_dim": 6}
_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_EXPERTS = {"num_experts_per_tok": 2, "num_local_experts": 4, "intermediate_size": 24}
_LAYERS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 4}
_GPT2 = {"vocab_size": 100, "n_layer": 2, "n_embd": 24, "n_head": 4, "n_positions": CONTEXT, **_TOKENS}
_FALCON = {**_DECODER, **_TOKENS, "bias": True, "ffn_hidden_size": 50, "max_position_embeddings": CONTEXT}
_ENCODER = {**_DECODER, "intermediate_size": 50, "max_position_embeddings": CONTEXT, "pad_token_id": 0}
_VISION = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 12,
    "patch_size": 4,
    "num_channels": 3,
}

_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", {**_GPT2, "n_inner": 50}),
    "gpt_neo": (
        "GPTNeoForCausalLM",
        {
            **{key: value for key, value in _DECODER.items() if "num" not in key},
            **_TOKENS,
            "num_layers": 2,
            "num_heads": 4,
            "intermediate_size": 50,
            "max_position_embeddings": CONTEXT,
            "window_size": 4,
            "attention_types": [[["global", "local"], 1]],
        },
    ),
    "gpt_neox": ("GPTNeoXForCausalLM", {**_ENCODER, **_TOKENS}),
    "gpt_neox (sequential)": ("GPTNeoXForCausalLM", {**_ENCODER, **_TOKENS, "use_parallel_residual": False}),
    "gptj": ("GPTJForCausalLM", {**_GPT2, "n_inner": 50, "rotary_dim": 4}),
    "llama": ("LlamaForCausalLM", _LLAMA),
    "mistral": ("MistralForCausalLM", {**_LLAMA, **_HEADS}),
    "mixtral": ("MixtralForCausalLM", {**_LLAMA, **_EXPERTS}),
    "qwen2": ("Qwen2ForCausalLM", _LLAMA),
    "qwen3": ("Qwen3ForCausalLM", {**_LLAMA, **_HEADS}),
    "qwen3_moe": (
        "Qwen3MoeForCausalLM",
        {
            **_LLAMA,
            **_HEADS,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "mlp_only_layers": [0],
        },
    ),
    "gemma": ("GemmaForCausalLM", {**_LLAMA, **_HEADS}),
    "gemma2": ("Gemma2ForCausalLM", {**_LLAMA, **_HEADS, **_LAYERS, "query_pre_attn_scalar": 6}),
    "gemma3": ("Gemma3ForCausalLM", {**_LLAMA, **_HEADS, **_LAYERS, "query_pre_attn_scalar": 6}),
    "phi": ("PhiForCausalLM", {**_LLAMA, "hidden_size": 32, "num_key_value_heads": 4}),
    "phi3": ("Phi3ForCausalLM", _LLAMA),
    "olmo2": ("Olmo2ForCausalLM", _LLAMA),
    "granite": ("GraniteForCausalLM", {**_LLAMA, "residual_multiplier": 0.22, "embedding_multiplier": 12.0}),
    "falcon": ("FalconForCausalLM", {**_FALCON, "new_decoder_architecture": False, "multi_query": True}),
    "falcon (new)": ("FalconForCausalLM", {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon (sequential)": (
        "FalconForCausalLM",
        {**_FALCON, "new_decoder_architecture": False, "parallel_attn": False, "alibi": True},
    ),
    "bloom": ("BloomForCausalLM", {"vocab_size": 100, "hidden_size": 24, "n_layer": 2, "n_head": 4, **_TOKENS}),
    "opt": (
        "OPTForCausalLM",
        {**_DECODER, **_TOKENS, "ffn_dim": 50, "word_embed_proj_dim": 24, "max_position_embeddings": CONTEXT},
    ),
    "gpt_oss": (
        "GptOssForCausalLM",
        {
            **_LLAMA,
            "head_dim": 8,
            **_EXPERTS,
            **_LAYERS,
            "rope_parameters": _ROPE,
        },
    ),
    "bert": ("BertForMaskedLM", _ENCODER),
    "roberta": ("RobertaForMaskedLM", {**_ENCODER, "pad_token_id": 1}),
    "vit": ("ViTModel", {**_VISION, "intermediate_size": 50}),
    "dinov2": ("Dinov2Model", {**_VISION, "mlp_ratio": 2}),
}
FAMILIES = tuple(_CONFIGS)


@functools.cache
def tiny(family: str) -> LanguageModel:
    """A random model of the family, of two blocks."""
    class_name, settings = _CONFIGS[family]
    cls: Any = getattr(transformers, class_name)
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(100)
        model = cls(cls.config_class(**settings))
        stir(model)
    return LanguageModel(model, None, family)


@functools.cache
def proof_of(family: str) -> Proof:
    return prove(tiny(family))


def verified_sites(family: str) -> dict[str, bool]:
    """Each point, and whether the family has it in some block; fails where the proof of a model finds a problem."""
    lm = tiny(family)
    assert not proof_of(family).problems
    names = {name.split(".", 2)[2] if name.startswith("layers.") else name for name in lm.sites.names()}
    found = {point: point in names for point in ("embed", *POINTS, "ln_final.normalized", "ln_final")}
    return found | {"mlp.experts": any(name.startswith("mlp.experts.") for name in names)}


def stir(model: nn.Module) -> None:
    """Weights large enough that every site matters, norms and biases that are not 1 and 0."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.copy_(0.3 * torch.randn_like(parameter))
