"""Write tests/models/golden: tiny models, and what TransformerLens holds in them, as they are and processed.

Run it with a Python that has transformer-lens; nothing is fetched. TransformerLens knows its models by their names on
the hub, so its configs are written out here, and its own conversions and processing do the rest.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

GOLDEN = Path(__file__).parent.parent / "tests" / "models" / "golden"
D, HEADS, LAYERS, VOCABULARY, CONTEXT, TOKENS = 16, 2, 2, 40, 16, 9
SHARED: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0}
WIDE: dict[str, Any] = {
    **SHARED,
    "vocab_size": VOCABULARY,
    "hidden_size": D,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 3 * D,
    "max_position_embeddings": CONTEXT,
}
IN_BLOCK = [
    "hook_resid_pre",
    "ln1.hook_normalized",
    "attn.hook_q",
    "attn.hook_k",
    "attn.hook_rot_q",
    "attn.hook_rot_k",
    "attn.hook_v",
    "attn.hook_attn_scores",
    "attn.hook_pattern",
    "attn.hook_z",
    "hook_attn_out",
    "hook_resid_mid",
    "ln2.hook_normalized",
    "mlp.hook_pre",
    "mlp.hook_pre_linear",
    "mlp.hook_post",
    "hook_mlp_out",
    "hook_resid_post",
]
NAMES = ["hook_embed", "ln_final.hook_normalized", *(f"blocks.{i}.{name}" for i in range(LAYERS) for name in IN_BLOCK)]


class Family(NamedTuple):
    """A tiny model, and what TransformerLens' config says of it beside the sizes."""

    build: Any
    conversion: str
    settings: dict[str, Any]


FAMILIES = {
    "gpt2": Family(
        lambda: GPT2LMHeadModel(
            GPT2Config(
                **SHARED,
                vocab_size=VOCABULARY,
                n_embd=D,
                n_head=HEADS,
                n_layer=LAYERS,
                n_inner=3 * D,
                n_positions=CONTEXT,
            )
        ),
        "convert_gpt2_weights",
        {"act_fn": "gelu_new", "normalization_type": "LN"},
    ),
    "gpt_neox": Family(
        lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**WIDE)),
        "convert_neox_weights",
        {
            "act_fn": "gelu",
            "normalization_type": "LN",
            "parallel_attn_mlp": True,
            "positional_embedding_type": "rotary",
            "rotary_adjacent_pairs": False,
            "rotary_dim": D // HEADS // 4,
        },
    ),
    "llama": Family(
        lambda: LlamaForCausalLM(LlamaConfig(**WIDE, num_key_value_heads=1)),
        "convert_llama_weights",
        {
            "act_fn": "silu",
            "normalization_type": "RMS",
            "final_rms": True,
            "gated_mlp": True,
            "n_key_value_heads": 1,
            "eps": 1e-6,
            "positional_embedding_type": "rotary",
            "rotary_adjacent_pairs": False,
            "rotary_dim": D // HEADS,
        },
    ),
}


def main() -> None:
    for name in FAMILIES:
        torch.manual_seed(63)
        model = stirred(FAMILIES[name].build())
        folder = GOLDEN / name
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        tokens = torch.randint(VOCABULARY, (1, TOKENS))
        held = {"tokens": tokens}
        for kind, is_processed in (("raw", False), ("processed", True)):
            _, cache = hooked(name, model, is_processed).run_with_cache(tokens)
            held |= {f"{kind}/{key}": cache[key].clone().contiguous() for key in NAMES if key in cache}
        save_file(held, folder / "transformer_lens.safetensors")
        print(name, len(held), "tensors")


def stirred(model: PreTrainedModel) -> PreTrainedModel:
    """Norms and biases that are not 1 and 0."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.copy_(0.3 * torch.randn_like(parameter))
    return model.eval()


def hooked(name: str, model: PreTrainedModel, is_processed: bool) -> Any:
    """The same model in TransformerLens."""
    import transformer_lens  # type: ignore[import-not-found]
    from transformer_lens.pretrained import weight_conversions  # type: ignore[import-not-found]

    family = FAMILIES[name]
    config = transformer_lens.HookedTransformerConfig(
        d_model=D,
        d_head=D // HEADS,
        n_heads=HEADS,
        d_mlp=3 * D,
        n_layers=LAYERS,
        n_ctx=CONTEXT,
        d_vocab=VOCABULARY,
        device="cpu",
        **{"eps": 1e-5} | family.settings,
    )
    there = transformer_lens.HookedTransformer(config)
    weights = getattr(weight_conversions, family.conversion)(model, config)
    weights = {key: value.detach().clone() for key, value in weights.items()}
    there.load_and_process_state_dict(
        weights,
        fold_ln=is_processed,
        center_writing_weights=is_processed,
        center_unembed=is_processed,
        fold_value_biases=is_processed,
    )
    return there.eval()


if __name__ == "__main__":
    main()
