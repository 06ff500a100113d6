"""More tiny dictionaries as other libraries publish them, and what their formulas give: those of small repositories."""

import json
from pathlib import Path
from typing import Any

import torch
from published_files import D, L, case, parts, rows
from published_formulas import Expected, formula, keep_largest


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
