# pyright: reportMissingImports=false
"""Dashboard data of some latents by sae-dashboard, unchanged; imports nothing of unweave.

Reads one JSON file: ``model`` (folder of a Llama), ``coder`` (folder written for SAELens), ``tokens`` (.npy), ``hook``,
``latents``, ``ignored`` tokens and ``out``, where it writes seconds, peak memory and each latent's top tokens as
[sequence, position, value].
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sae_dashboard.sae_vis_data import SaeVisConfig
from sae_dashboard.sae_vis_runner import SaeVisRunner
from sae_lens import SAE, HookedSAETransformer
from transformer_lens import HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_llama_weights
from transformers import AutoModelForCausalLM


def hooked(folder: str) -> HookedSAETransformer:
    """The Llama of a folder as TransformerLens has it, with no weight folded."""
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    facts = theirs.config
    config = HookedTransformerConfig(
        n_layers=facts.num_hidden_layers,
        d_model=facts.hidden_size,
        n_ctx=facts.max_position_embeddings,
        d_head=facts.head_dim,
        n_heads=facts.num_attention_heads,
        d_mlp=facts.intermediate_size,
        d_vocab=facts.vocab_size,
        act_fn=facts.hidden_act,
        eps=facts.rms_norm_eps,
        normalization_type="RMS",
        positional_embedding_type="rotary",
        rotary_adjacent_pairs=False,
        rotary_dim=facts.head_dim,
        rotary_base=int(facts.rope_theta),
        final_rms=True,
        gated_mlp=True,
        device="cpu",
    )
    model = HookedSAETransformer(config)
    model.load_state_dict(convert_llama_weights(theirs, config), strict=False)
    return model


def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text())
    model, tokens = hooked(told["model"]), torch.from_numpy(np.load(told["tokens"]).astype(np.int64))
    coder = SAE.load_from_disk(told["coder"])
    config = SaeVisConfig(
        hook_point=told["hook"],
        features=told["latents"],
        minibatch_size_features=128,  # the default of its runner for Neuronpedia
        ignore_tokens=set(told["ignored"]),
    )
    start = time.perf_counter()
    found = SaeVisRunner(config).run(encoder=coder, model=model, tokens=tokens)
    seconds = time.perf_counter() - start
    top = {}
    for latent, data in found.feature_data_dict.items():
        group = data.sequence_data.seq_group_data[0].seq_data
        before = config.feature_centric_layout.seq_cfg.buffer[0]
        top[latent] = [[s.original_index, s.qualifying_token_index, s.feat_acts[before]] for s in group]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Path(told["out"]).write_text(json.dumps({"seconds": seconds, "peak_mb": peak, "top": top}))


if __name__ == "__main__":
    main()
