"""Tiny dictionaries with seeded weights, in files as other libraries publish them: one function for each layout.

Nothing here imports unweave, so that the files are written in whatever environment the original library needs.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

D, L, ROWS = 6, 17, 9
CASES: dict[str, Callable[[Path], None]] = {}
"""What writes each case, by its folder: a format, and below it the names that its repository has."""


def case(folder: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    def register(write: Callable[[Path], None]) -> Callable[[Path], None]:
        CASES[folder] = write
        return write

    return register


def random(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rows(seed: int, *shape: int) -> Tensor:
    """Rows to read, with a mean, so that a missing centre shows."""
    return 2.0 * random(*(shape or (ROWS, D)), seed=seed) + random(shape[-1] if shape else D, seed=seed + 1)


def parts(seed: int, n_latents: int = L, d_write: int = D) -> dict[str, Tensor]:
    """Weights in the orientation of most: W_enc [D, L], W_dec [L, D]; decoder rows of different norms."""
    spread = torch.linspace(0.5, 2.0, n_latents)[:, None]
    return {
        "W_enc": random(D, n_latents, seed=seed, scale=0.4),
        "b_enc": random(n_latents, seed=seed + 1, scale=0.3),
        "W_dec": spread * torch.nn.functional.normalize(random(n_latents, d_write, seed=seed + 2), dim=1),
        "b_dec": random(d_write, seed=seed + 3, scale=0.5),
        "threshold": random(n_latents, seed=seed + 4, scale=0.3).abs() + 0.1,
    }


def _npz(folder: Path, tensors: dict[str, Tensor]) -> None:
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    np.savez(folder / "params.npz", **arrays)


def _safe(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def _json(path: Path, config: dict[str, Any]) -> None:
    path.write_text(json.dumps(config, indent=1) + "\n")


@case("gemma_scope/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82")
def _gemma_scope(folder: Path) -> None:
    _npz(folder, parts(100))


@case("gemma_scope/gemma-scope-9b-pt-att/layer_3/width_16k/average_l0_5")
def _gemma_scope_attention(folder: Path) -> None:
    _npz(folder, {name.replace("W_", "w_"): tensor for name, tensor in parts(110).items()})


@case("gemma_scope/gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6")
def _gemma_scope_embedding(folder: Path) -> None:
    _npz(folder, parts(120))


@case("gemma_scope/gemma-scope-2b-pt-transcoders/layer_7/width_16k/average_l0_76")
def _gemma_scope_transcoder(folder: Path) -> None:
    _npz(folder, parts(130))


def _gemma_2(folder: Path, seed: int, point_in: str, point_out: str = "", *, skip: bool = False) -> None:
    tensors = {name.replace("W_", "w_"): tensor for name, tensor in parts(seed).items()}
    if skip:
        tensors["affine_skip_connection"] = random(D, D, seed=seed + 5)
    _safe(folder / "params.safetensors", tensors)
    config = {"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt", "hf_hook_point_in": point_in}
    if point_out:
        config |= {"hf_hook_point_out": point_out, "affine_connection": skip}
    _json(folder / "config.json", config)


@case("gemma_scope_2/gemma-scope-2-1b-pt/resid_post/layer_13_width_16k_l0_big")
def _gemma_scope_2(folder: Path) -> None:
    _gemma_2(folder, 140, "model.layers.13.output")


MLP = "model.layers.13.pre_feedforward_layernorm.output", "model.layers.13.post_feedforward_layernorm.output"


@case("gemma_scope_2/gemma-scope-2-1b-pt/transcoder/layer_13_width_16k_l0_big")
def _gemma_scope_2_transcoder(folder: Path) -> None:
    _gemma_2(folder, 150, *MLP)


@case("gemma_scope_2/gemma-scope-2-1b-pt/transcoder/layer_13_width_16k_l0_big_affine")
def _gemma_scope_2_skip(folder: Path) -> None:
    _gemma_2(folder, 160, *MLP, skip=True)


@case("gemma_scope_2/gemma-scope-2-1b-pt/clt/width_16k_l0_big_affine")
def _gemma_scope_2_cross_layer(folder: Path) -> None:
    for layer in range(3):
        tensors = {name.replace("W_", "w_"): tensor for name, tensor in parts(170 + 10 * layer).items()}
        tensors["w_dec"] = random(L, 3, D, seed=177 + 10 * layer, scale=0.5)
        tensors["affine_skip_connection"] = random(D, D, seed=178 + 10 * layer)
        _safe(folder / f"params_layer_{layer}.safetensors", tensors)


def _linear(seed: int, encoder: str = "encoder", decoder: str = "decoder") -> dict[str, Tensor]:
    p = parts(seed)
    weights = {f"{encoder}.weight": p["W_enc"].T, f"{decoder}.weight": p["W_dec"].T}
    biases = {f"{encoder}.bias": p["b_enc"], f"{decoder}.bias": p["b_dec"]}
    return {name: tensor.contiguous() for name, tensor in {**weights, **biases}.items()}


@case("llama_scope/Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L15R-8x")
def _llama_scope(folder: Path) -> None:
    hook = "blocks.15.hook_resid_post"
    _llama(folder, 200, _llama_config(hook, hook, {"in": 7.5, "out": 7.5}))


@case("llama_scope/Llama3_1-8B-Base-LXTC-8x/Llama3_1-8B-Base-L15TC-8x")
def _llama_scope_transcoder(folder: Path) -> None:
    norms = {"in": 7.5, "out": 1.25}
    _llama(folder, 210, _llama_config("blocks.15.hook_resid_mid", "blocks.15.hook_mlp_out", norms))


def _llama(folder: Path, seed: int, config: dict[str, Any]) -> None:
    (folder / "checkpoints").mkdir()
    _safe(folder / "checkpoints" / "final.safetensors", _linear(seed))
    _json(folder / "hyperparams.json", config)


def _llama_config(hook_in: str, hook_out: str, norms: dict[str, float]) -> dict[str, Any]:
    kind = {"act_fn": "jumprelu", "jump_relu_threshold": 0.9, "norm_activation": "dataset-wise"}
    switches = {"use_decoder_bias": True, "apply_decoder_bias_to_pre_encoder": False, "use_glu_encoder": False}
    sizes = {"d_model": D, "expansion_factor": L / D, "d_sae": L, "sparsity_include_decoder_norm": True, "top_k": 50}
    hooks = {"hook_point_in": hook_in, "hook_point_out": hook_out, "dataset_average_activation_norm": norms}
    return {**hooks, **kind, **switches, **sizes}


@case("llama_scope/Llama-Scope-R1-Distill/0-Slimpajama-800M-OpenR1-Math-220k/L5R")
def _r1_distill(folder: Path) -> None:
    hook = "blocks.5.hook_resid_post"
    tensors = _linear(220) | {"log_jumprelu_threshold": random(L, seed=224, scale=0.3)}
    _safe(folder / "sae_weights.safetensors", tensors | {f"dataset_average_activation_norm.{hook}": torch.tensor(3.5)})
    config = {"hook_point_in": hook, "hook_point_out": hook, "d_model": D, "expansion_factor": L / D}
    _json(folder / "config.json", config | {"act_fn": "jumprelu", "norm_activation": "dataset-wise"})


def moss_config(
    act_fn: str, hook_in: str = "blocks.2.hook_resid_post", hook_out: str = "", **other: Any
) -> dict[str, Any]:
    sizes = {"sae_type": "sae", "d_model": D, "expansion_factor": L / D, "act_fn": act_fn, "top_k": 4}
    switches = {"use_decoder_bias": True, "norm_activation": "dataset-wise", "sparsity_include_decoder_norm": True}
    hooks = {"hook_point_in": hook_in, "hook_point_out": hook_out or hook_in, "use_glu_encoder": False}
    return {**sizes, **switches, **hooks, **other}


def _moss(folder: Path, seed: int, config: dict[str, Any]) -> None:
    p = parts(seed)
    tensors = {"W_E": p["W_enc"], "b_E": p["b_enc"], "W_D": p["W_dec"], "b_D": p["b_dec"]}
    if config["act_fn"] == "jumprelu":
        tensors["activation_function.log_jumprelu_threshold"] = random(L, seed=seed + 4, scale=0.3)
    norms = dict(zip((config["hook_point_in"], config["hook_point_out"]), (4.5, 4.5), strict=True))
    if len(norms) == 2:
        norms[config["hook_point_out"]] = 1.25
    stats = {f"dataset_average_activation_norm.{hook}": torch.tensor(value) for hook, value in norms.items()}
    _safe(folder / "sae_weights.safetensors", tensors | stats)
    _json(folder / "config.json", config)


_WITHOUT_NORMS = {"sparsity_include_decoder_norm": False, "norm_activation": "inference"}
for _number, (_name, _config) in enumerate(
    {
        "relu": moss_config("relu"),
        "topk": moss_config("topk"),
        "topk_free_norm": moss_config("topk", **_WITHOUT_NORMS),
        "batchtopk_row_by_row": moss_config("batchtopk", norm_activation="token-wise"),
        "jumprelu_transcoder": moss_config("jumprelu", "blocks.2.ln2.hook_normalized", "blocks.2.hook_mlp_out"),
    }.items()
):
    CASES[f"openmoss/{_name}"] = partial(_moss, seed=300 + 10 * _number, config=_config)


@case("openmoss/crosscoder")
def _moss_crosscoder(folder: Path) -> None:
    hooks = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post", "blocks.2.hook_resid_post"]
    tensors = {
        "W_E": random(3, D, L, seed=350, scale=0.3),
        "b_E": random(3, L, seed=351, scale=0.2),
        "W_D": random(3, L, D, seed=352, scale=0.5),
        "b_D": random(3, D, seed=353),
    }
    stats = {f"dataset_average_activation_norm.{hook}": torch.tensor(2.0 + n) for n, hook in enumerate(hooks)}
    _safe(folder / "sae_weights.safetensors", tensors | stats)
    config = moss_config("relu", sae_type="crosscoder", hook_points=hooks)
    _json(folder / "config.json", {key: value for key, value in config.items() if not key.startswith("hook_point_")})


def _openai(path: Path, seed: int, activation: str, details: dict[str, Any]) -> None:
    p = parts(seed)
    weights = {"pre_bias": p["b_dec"], "encoder.weight": p["W_enc"].T, "latent_bias": p["b_enc"]}
    weights |= {"decoder.weight": p["W_dec"].T, "stats_last_nonzero": torch.zeros(L, dtype=torch.int64)}
    weights |= {"latents_activation_frequency": torch.ones(L), "latents_mean_square": torch.zeros(L)}
    state: dict[str, Any] = {name: tensor.contiguous() for name, tensor in weights.items()}
    torch.save(state | {"activation": activation, "activation_state_dict": details}, path)


@case("openai/gpt2-small/resid_delta_mlp_v4/autoencoders")
def _openai_relu(folder: Path) -> None:
    _openai(folder / "3.pt", 400, "ReLU", {})


@case("openai/gpt2-small/resid_post_mlp_v5_32k/autoencoders")
def _openai_topk(folder: Path) -> None:
    _openai(folder / "8.pt", 410, "TopK", {"k": 5, "postact_fn": "ReLU"})


@case("goodfire/Llama-3.1-8B-Instruct-SAE-l19")
def _goodfire(folder: Path) -> None:
    torch.save(_linear(420, "encoder_linear", "decoder_linear"), folder / "Llama-3.1-8B-Instruct-SAE-l19.pth")


@case("deepseek/DeepSeek-R1-Distill-Llama-8B-SAE-l19")
def _deepseek(folder: Path) -> None:
    torch.save(_linear(430), folder / "DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt")


@case("qwen_scope/SAE-Res-Qwen3-1.7B-Base-W32K-L0_5")
def _qwen(folder: Path) -> None:
    p = parts(440)
    tensors = {"W_enc": p["W_enc"].T, "W_dec": p["W_dec"].T, "b_enc": p["b_enc"], "b_dec": p["b_dec"]}
    torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "layer4.sae.pt")


@case("hook_z/attn-saes-gpt2-small-all-layers")
def _hook_z(folder: Path) -> None:
    p = parts(450)
    p.pop("threshold")
    torch.save(p, folder / "gpt2-small_L5_Hcat_z_lr1.pt")
    config = {"act_name": "blocks.5.attn.hook_z", "act_size": D, "dict_size": L, "enc_dtype": "fp32"}
    _json(folder / "gpt2-small_L5_Hcat_z_lr1_cfg.json", config)


def _yaml(folder: Path, kind: str) -> None:
    hooks = {"feature_input_hook": "hook_resid_mid", "feature_output_hook": "hook_mlp_out"}
    config = {"model_name": "gpt2", "model_kind": kind, **hooks, "scan": folder.name}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def _per_layer(folder: Path, seed: int, *, threshold: bool, skip: bool) -> None:
    for layer in range(2):
        p = parts(seed + 10 * layer)
        tensors = {"W_enc": p["W_enc"].T, "W_dec": p["W_dec"], "b_enc": p["b_enc"], "b_dec": p["b_dec"]}
        if threshold:
            tensors["activation_function.threshold"] = p["threshold"]
        if skip:
            tensors["W_skip"] = random(D, D, seed=seed + 5)
        _safe(folder / f"layer_{layer}.safetensors", tensors)
    _yaml(folder, "transcoder_set")


@case("circuit_tracer/relu")
def _circuit_tracer(folder: Path) -> None:
    _per_layer(folder, 500, threshold=False, skip=False)


@case("circuit_tracer/jumprelu_skip")
def _circuit_tracer_skip(folder: Path) -> None:
    _per_layer(folder, 520, threshold=True, skip=True)


def _cross_layer(folder: Path, seed: int, *, threshold: bool) -> None:
    for layer in range(3):
        p = parts(seed + 10 * layer)
        tensors = {f"W_enc_{layer}": p["W_enc"].T, f"b_enc_{layer}": p["b_enc"], f"b_dec_{layer}": p["b_dec"]}
        if threshold:
            tensors[f"threshold_{layer}"] = p["threshold"]
        _safe(folder / f"W_enc_{layer}.safetensors", tensors)
        W_dec = random(L, 3 - layer, D, seed=seed + 7 + 10 * layer, scale=0.5)
        _safe(folder / f"W_dec_{layer}.safetensors", {f"W_dec_{layer}": W_dec})
    _yaml(folder, "cross_layer_transcoder")


@case("circuit_tracer/cross_layer_relu")
def _circuit_tracer_cross(folder: Path) -> None:
    _cross_layer(folder, 540, threshold=False)


@case("circuit_tracer/cross_layer_jumprelu")
def _circuit_tracer_cross_jump(folder: Path) -> None:
    _cross_layer(folder, 570, threshold=True)


def _standardised(folder: Path, seed: int, decoder: str, chosen: dict[str, Any], *, standardise: bool) -> None:
    n, module = 3, "crosslayer_transcoder.model."
    encoder = {"encoder.W": random(n, D, L, seed=seed, scale=0.4), "encoder.b": random(n, L, seed=seed + 1, scale=0.3)}
    written = {"decoder.W": random(n, L, D, seed=seed + 2)} if decoder == "Decoder" else {}
    if not written:
        written = {f"decoder.W_{t}": random(t + 1, L, D, seed=seed + 2 + t, scale=0.5) for t in range(n)}
    tensors = {**encoder, **written, "decoder.b": random(n, D, seed=seed + 7)}
    if chosen["class_path"].endswith("JumpReLU"):
        tensors["nonlinearity.theta"] = random(1, n, L, seed=seed + 8, scale=0.3)
        tensors["nonlinearity.bandwidth"] = torch.tensor(0.01)
    arguments = {"decoder": {"class_path": f"{module}clt.{decoder}", "init_args": {}}, "nonlinearity": chosen}
    for number, end in enumerate(("input", "output")):
        arguments[f"{end}_standardizer"] = None
        if standardise:
            name = f"standardize.Dimensionwise{end.capitalize()}Standardizer"
            arguments[f"{end}_standardizer"] = {"class_path": module + name, "init_args": {"n_layers": n}}
            tensors[f"{end}_standardizer.mean"] = random(n, D, seed=seed + 10 + number)
            tensors[f"{end}_standardizer.std"] = random(n, D, seed=seed + 12 + number).abs() + 0.5
    _safe(folder / "checkpoint.safetensors", tensors)
    model = {"class_path": f"{module}clt.CrossLayerTranscoder", "init_args": arguments, "is_folded": not standardise}
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": model}))


@case("crosslayer_transcoder/cross_layer_jumprelu")
def _crosslayer_jumprelu(folder: Path) -> None:
    chosen = {"class_path": "crosslayer_transcoder.model.jumprelu.JumpReLU", "init_args": {"theta": 0.03}}
    _standardised(folder, 600, "CrosslayerDecoder", chosen, standardise=False)


@case("crosslayer_transcoder/per_layer_topk_standardised")
def _crosslayer_topk(folder: Path) -> None:
    chosen = {"class_path": "crosslayer_transcoder.model.topk.PerLayerTopK", "init_args": {"k": 4, "n_layers": 3}}
    _standardised(folder, 630, "Decoder", chosen, standardise=True)


@case("crosslayer_transcoder/cross_layer_relu_standardised")
def _crosslayer_relu(folder: Path) -> None:
    chosen = {"class_path": "crosslayer_transcoder.model.jumprelu.ReLU", "init_args": {}}
    _standardised(folder, 660, "CrosslayerDecoder", chosen, standardise=True)


def _kissane(folder: Path, seed: int) -> None:
    weights = {"W_enc": random(2, D, L, seed=seed, scale=0.3), "W_dec": random(L, 2, D, seed=seed + 1, scale=0.5)}
    torch.save(
        weights | {"b_enc": random(L, seed=seed + 2), "b_dec": random(2, D, seed=seed + 3)}, folder / "cc_weights.pt"
    )
    config = {"d_in": D, "dict_size": L, "enc_dtype": "fp32", "seed": 49, "hook_point": "blocks.14.hook_resid_pre"}
    _json(folder / "cfg.json", config | {"model_name": "gemma-2-2b", "dec_init_norm": 0.08, "device": "cpu"})


@case("crosscoder/as_trained")
def _crosscoder(folder: Path) -> None:
    _kissane(folder, 700)


@case("crosscoder/crosscoder-gemma-2-2b-model-diff/blocks.14.hook_resid_pre")
def _crosscoder_gemma(folder: Path) -> None:
    _kissane(folder, 710)


def _minder(folder: Path, seed: int, number: int, *, batch_topk: bool, normalised: bool) -> None:
    mean = random(2, D, seed=seed + 4) if normalised else torch.full((2, D), torch.nan)
    tensors = {
        "encoder.weight": random(2, D, L, seed=seed, scale=0.3),
        "encoder.bias": random(L, seed=seed + 1),
        "decoder.weight": random(2, L, D, seed=seed + 2, scale=0.5),
        "decoder.bias": random(2, D, seed=seed + 3),
        "code_normalization_id": torch.tensor(number),
    }
    scale = torch.tensor(0.4 if normalised else 1.0)
    tensors |= {"activation_mean": mean, "activation_std": mean.abs(), "activation_global_scale": scale}
    if batch_topk:
        tensors |= {"k": torch.tensor(5, dtype=torch.int32), "threshold": torch.tensor(1.3)}
    _safe(folder / "model.safetensors", tensors)
    config = {"activation_dim": D, "dict_size": L, "num_layers": 2, "code_normalization": "CROSSCODER"}
    _json(folder / "config.json", config | ({"k": 5} if batch_topk else {}))


@case("crosscoder/minder_batchtopk")
def _minder_batchtopk(folder: Path) -> None:
    _minder(folder, 720, 1, batch_topk=True, normalised=True)


@case("crosscoder/minder_relu")
def _minder_relu(folder: Path) -> None:
    _minder(folder, 730, 4, batch_topk=False, normalised=False)
