"""More tiny dictionaries as other libraries publish them, and what their formulas give: those of small repositories."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from published_files import D, L, case, parts, random, rows
from published_formulas import Expected, formula, keep_largest
from safetensors.torch import save_file


def _batchtopk(folder: Path, seed: int, kind: str, *, normed: bool) -> None:
    p = parts(seed)
    threshold = p.pop("threshold")
    torch.save(p | ({"jumprelu.log_threshold": threshold.log()} if kind == "jumprelu" else {}), folder / "sae.pt")
    config: dict[str, Any] = {"sae_type": kind, "act_size": D, "dict_size": L, "top_k": 4, "input_unit_norm": normed}
    config |= {"model_name": "gpt2-small", "hook_point": "blocks.8.hook_resid_pre", "dtype": "torch.float32"}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


@case("batchtopk/vanilla")
def _vanilla(folder: Path) -> None:
    _batchtopk(folder, 800, "vanilla", normed=False)


@case("batchtopk/topk_normed")
def _topk(folder: Path) -> None:
    _batchtopk(folder, 810, "topk", normed=True)


@case("batchtopk/jumprelu_normed")
def _jumprelu(folder: Path) -> None:
    _batchtopk(folder, 820, "jumprelu", normed=True)


@case("e2e_sae/gpt2")
def _e2e(folder: Path) -> None:
    for samples in (9, 10):
        state = {}
        for number, site in enumerate(("blocks-2-hook_resid_pre", "blocks-6-hook_resid_pre")):
            p = parts(840 + 10 * number + 100 * samples)
            state |= {f"{site}.encoder.0.weight": p["W_enc"].T.contiguous(), f"{site}.encoder.0.bias": p["b_enc"]}
            state |= {f"{site}.decoder.weight": p["W_dec"].T.contiguous(), f"{site}.decoder.bias": p["b_dec"]}
        torch.save(state, folder / f"samples_{samples}.pt")
    (folder / "final_config.yaml").write_text("tlens_model_name: gpt2-small\n")


def _temporal(folder: Path, seed: int, model: str, **settings: Any) -> None:
    n_latents, key = 2 * D, 4
    p = {"D": parts(seed, n_latents)["W_dec"], "b": parts(seed)["b_dec"]}
    if not settings["tied_weights"]:
        p["E"] = random(D, n_latents, seed=seed + 5)
    for layer in range(settings["n_attn_layers"]):
        widths = {"k_ctx": key, "q_target": key, "v_ctx": n_latents, "c_proj": n_latents}
        for number, (name, width) in enumerate(widths.items()):
            place = seed + 10 * layer + number
            p[f"attn_layers.{layer}.{name}.weight"] = random(width, n_latents, seed=place + 100)
            p[f"attn_layers.{layer}.{name}.bias"] = random(width, seed=place + 200, scale=0.3)
    save_file(p, folder / "latest_ckpt.safetensors")
    sae = {"sae_type": "temporal", "exp_factor": 2, "n_heads": 2, "bottleneck_factor": n_latents // key} | settings
    config = {"data": {"dtype": "float32"}, "llm": {"model_hf_name": model, "dimin": D}, "sae": sae}
    (folder / "conf.yaml").write_text(yaml.safe_dump(config))


@case("temporal_saes/temporalSAEs/gemma-2-2B/layer_12/temporal")
def _temporal_tied(folder: Path) -> None:
    selects = {"sae_diff_type": "topk", "kval_topk": 3}
    _temporal(folder, 900, "google/gemma-2-2b", n_attn_layers=1, tied_weights=True, scaling_factor=0.2, **selects)


@case("temporal_saes/temporalSAEs/llama-3.1-8B/layer_15/temporal")
def _temporal_not_tied(folder: Path) -> None:
    selects = {"sae_diff_type": "relu", "kval_topk": None}
    model = "meta-llama/Llama-3.1-8B"
    _temporal(folder, 950, model, n_attn_layers=2, tied_weights=False, scaling_factor=3.0, **selects)


@formula("batchtopk")
def _of_batchtopk(folder: Path) -> Expected:
    """bartbussmann/BatchTopK, sae.py."""
    config = json.loads((folder / "config.json").read_text())
    p = torch.load(folder / "sae.pt", weights_only=True)
    x = rows(805)
    mean = x.mean(dim=-1, keepdim=True) if config["input_unit_norm"] else torch.zeros(1)
    std = (x - mean).std(dim=-1, keepdim=True) if config["input_unit_norm"] else torch.ones(1)
    z = (x - mean) / (std + 1e-5) if config["input_unit_norm"] else x
    if config["sae_type"] == "vanilla":
        f = torch.relu((z - p["b_dec"]) @ p["W_enc"] + p["b_enc"])
    elif config["sae_type"] == "topk":
        f = keep_largest((z - p["b_dec"]) @ p["W_enc"], config["top_k"])
    else:
        f = torch.relu(z @ p["W_enc"] + p["b_enc"])
        f = f * (f > p["jumprelu.log_threshold"].exp())
    return {"x": x, "codes": f, "reconstruction": (f @ p["W_dec"] + p["b_dec"]) * std + mean}


@formula("e2e_sae")
def _of_e2e(folder: Path) -> Expected:
    """ApolloResearch/e2e_sae, models/sparsifiers.py."""
    p = torch.load(folder / "samples_10.pt", weights_only=True)
    x = rows(845, 2, 9, D)
    codes, outputs = [], []
    for number, site in enumerate(("blocks-2-hook_resid_pre", "blocks-6-hook_resid_pre")):
        codes.append(torch.relu(x[number] @ p[f"{site}.encoder.0.weight"].T + p[f"{site}.encoder.0.bias"]))
        elements = torch.nn.functional.normalize(p[f"{site}.decoder.weight"], dim=0)
        outputs.append(codes[-1] @ elements.T + p[f"{site}.decoder.bias"])
    return {"x": x, "codes": torch.stack(codes), "outputs": torch.stack(outputs)}
