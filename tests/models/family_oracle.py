"""Where each point of each family is, written by hand from what the families' own code does."""

Table = dict[str, tuple[str, str]]
"""Point to the path of its module within the block, and the side."""


def _table(blocks: str, lines: str) -> tuple[str, Table]:
    points = {}
    for line in filter(None, lines.splitlines()):
        point, module, side = line.split()
        points[point] = ("" if module == "." else f".{module}", side)
    return blocks, points


def _inside(attention: str) -> str:
    return "".join(f"\nattn.{point} {attention} attention\n" for point in ("q", "k", "v", "scores", "pattern"))


_STREAM = """
resid_pre . in
resid_post . out
"""
_GPT2 = """
ln1.normalized ln_1 norm
attn_out attn out
resid_mid ln_2 stream
ln2.normalized ln_2 norm
mlp_in mlp in
mlp.pre mlp.c_fc out
mlp.post mlp.c_proj in
mlp_out mlp out
"""
_LLAMA_ATTENTION = """
ln1.normalized input_layernorm norm
attn.z self_attn.o_proj in
attn_out self_attn out
resid_mid post_attention_layernorm stream
ln2.normalized post_attention_layernorm norm
mlp_in mlp in
mlp_out mlp out
"""
_LLAMA_ATTENTION += _inside("self_attn")
_GATED = """
mlp.pre mlp.gate_proj out
mlp.pre_linear mlp.up_proj out
mlp.post mlp.down_proj in
"""
_GEMMA2 = """
ln1.normalized input_layernorm norm
attn.z self_attn.o_proj in
attn_out post_attention_layernorm out
resid_mid pre_feedforward_layernorm stream
ln2.normalized pre_feedforward_layernorm norm
mlp_in mlp in
mlp_out post_feedforward_layernorm out
"""
_GEMMA2 += _inside("self_attn")
_NEOX = """
ln1.normalized input_layernorm norm
attn.z attention.dense in
attn_out attention out
ln2.normalized post_attention_layernorm norm
mlp_in mlp in
mlp.pre mlp.dense_h_to_4h out
mlp.post mlp.dense_4h_to_h in
mlp_out mlp out
"""
_NEOX += _inside("attention")
_FALCON = """
attn.z self_attention.dense in
attn_out self_attention out
mlp_in mlp in
mlp.pre mlp.dense_h_to_4h out
mlp.post mlp.dense_4h_to_h in
mlp_out mlp out
"""
_BERT = """
attn.z attention.output.dense in
attn_out attention.output.dense out
resid_mid attention.output.LayerNorm out
mlp_in intermediate in
mlp.pre intermediate.dense out
mlp.post output.dense in
mlp_out output.dense out
"""
_BERT += _inside("attention.self")
_VIT_MLP = """
attn.z attention.o_proj in
mlp_in mlp in
mlp.pre mlp.fc1 out
mlp.post mlp.fc2 in
"""
_VIT_MLP += _inside("attention")
_LLAMA = _table("model.layers", _STREAM + _LLAMA_ATTENTION + _GATED)
_ROUTED = """
mlp.router mlp experts
mlp.routing mlp experts
"""
_MIXTURE = _table("model.layers", _STREAM + _LLAMA_ATTENTION + _ROUTED)
EXPECTED: dict[str, tuple[str, Table]] = {
    "gpt2": _table("transformer.h", _STREAM + _GPT2 + "attn.z attn.c_proj in" + _inside("attn")),
    "gpt_neo": _table("transformer.h", _STREAM + _GPT2 + "attn.z attn.attention.out_proj in"),
    "gpt_neox": _table("gpt_neox.layers", _STREAM + _NEOX),
    "gpt_neox (sequential)": _table("gpt_neox.layers", _STREAM + _NEOX + "resid_mid post_attention_layernorm stream"),
    "gptj": _table(
        "transformer.h",
        _STREAM
        + """
ln1.normalized ln_1 norm
attn.z attn.out_proj in
attn_out attn out
ln2.normalized ln_1 norm
mlp_in mlp in
mlp.pre mlp.fc_in out
mlp.post mlp.fc_out in
mlp_out mlp out
""",
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": _MIXTURE,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "qwen3_moe": _MIXTURE,
    "gemma": _LLAMA,
    "gemma2": _table("model.layers", _STREAM + _GEMMA2 + _GATED),
    "gemma3": _table("model.layers", _STREAM + _GEMMA2 + _GATED),
    "phi": _table(
        "model.layers",
        _STREAM
        + _inside("self_attn")
        + """
ln1.normalized input_layernorm norm
attn.z self_attn.dense in
attn_out self_attn out
ln2.normalized input_layernorm norm
mlp_in mlp in
mlp.pre mlp.fc1 out
mlp.post mlp.fc2 in
mlp_out mlp out
""",
    ),
    "phi3": _table(
        "model.layers",
        _STREAM
        + _LLAMA_ATTENTION
        + """
mlp.pre mlp.gate_up_proj out
mlp.pre_linear mlp.gate_up_proj out
mlp.post mlp.down_proj in
""",
    ),
    "olmo2": _table(
        "model.layers",
        _STREAM
        + _inside("self_attn")
        + _GATED
        + """
attn.z self_attn.o_proj in
attn_out post_attention_layernorm out
resid_mid mlp stream
mlp_in mlp in
mlp_out post_feedforward_layernorm out
""",
    ),
    "granite": _LLAMA,
    "falcon": _table(
        "transformer.h",
        _STREAM + _FALCON + "ln1.normalized input_layernorm norm\nln2.normalized input_layernorm norm",
    ),
    "falcon (new)": _table(
        "transformer.h", _STREAM + _FALCON + "ln1.normalized ln_attn norm\nln2.normalized ln_mlp norm"
    ),
    "falcon (sequential)": _table(
        "transformer.h",
        _STREAM
        + _FALCON
        + """
ln1.normalized input_layernorm norm
resid_mid post_attention_layernorm stream
ln2.normalized post_attention_layernorm norm
""",
    ),
    "bloom": _table(
        "transformer.h",
        _STREAM
        + """
ln1.normalized input_layernorm norm
attn.z self_attention.dense in
attn_out self_attention.dense out
resid_mid post_attention_layernorm stream
ln2.normalized post_attention_layernorm norm
mlp_in mlp in
mlp.pre mlp.dense_h_to_4h out
mlp.post mlp.dense_4h_to_h in
mlp_out mlp.dense_4h_to_h out
""",
    ),
    "opt": _table(
        "model.decoder.layers",
        _STREAM
        + _inside("self_attn")
        + """
ln1.normalized self_attn_layer_norm norm
attn.z self_attn.out_proj in
attn_out self_attn out
resid_mid final_layer_norm stream
ln2.normalized final_layer_norm norm
mlp_in fc1 in
mlp.pre fc1 out
mlp.post fc2 in
mlp_out fc2 out
""",
    ),
    "gpt_oss": _MIXTURE,
    "bert": _table("bert.encoder.layer", _STREAM + _BERT),
    "roberta": _table("roberta.encoder.layer", _STREAM + _BERT),
    "vit": _table(
        "layers",
        _STREAM
        + _VIT_MLP
        + """
ln1.normalized layernorm_before norm
attn_out attention out
resid_mid layernorm_after stream
ln2.normalized layernorm_after norm
mlp_out mlp out
""",
    ),
    "dinov2": _table(
        "encoder.layer",
        _STREAM
        + _VIT_MLP
        + """
ln1.normalized norm1 norm
attn_out layer_scale1 out
resid_mid norm2 stream
ln2.normalized norm2 norm
mlp_out layer_scale2 out
""",
    ),
}
ENDS = {
    "gpt2": ("transformer.wte", "transformer.ln_f"),
    "gpt_neo": ("transformer.wte", "transformer.ln_f"),
    "gpt_neox": ("gpt_neox.embed_in", "gpt_neox.final_layer_norm"),
    "gpt_neox (sequential)": ("gpt_neox.embed_in", "gpt_neox.final_layer_norm"),
    "gptj": ("transformer.wte", "transformer.ln_f"),
    "phi": ("model.embed_tokens", "model.final_layernorm"),
    "falcon": ("transformer.word_embeddings", "transformer.ln_f"),
    "falcon (new)": ("transformer.word_embeddings", "transformer.ln_f"),
    "falcon (sequential)": ("transformer.word_embeddings", "transformer.ln_f"),
    "bloom": ("transformer.word_embeddings", "transformer.ln_f"),
    "opt": ("model.decoder.embed_tokens", "model.decoder.final_layer_norm"),
    "bert": ("bert.embeddings.word_embeddings", ""),
    "roberta": ("roberta.embeddings.word_embeddings", ""),
    "vit": ("embeddings.patch_embeddings", "layernorm"),
    "dinov2": ("embeddings.patch_embeddings", "layernorm"),
}
LLAMA_ENDS = ("model.embed_tokens", "model.norm")
