"""What dictionaries whose library cannot be installed give for some rows, by their published formulas in plain torch.

Each function names the code that it follows. It loops and stays dense where unweave folds and is sparse, so that the
two have nothing in common but the formula.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from published_files import ROWS, D, rows
from safetensors.torch import load_file
from torch import Tensor

Expected = dict[str, Tensor]
FORMULAS: dict[str, Callable[[Path], Expected]] = {}
"""What computes each case, by the beginning of its folder."""


def formula(start: str) -> Callable[[Callable[[Path], Expected]], Callable[[Path], Expected]]:
    def register(compute: Callable[[Path], Expected]) -> Callable[[Path], Expected]:
        FORMULAS[start] = compute
        return compute

    return register


def keep_largest(h: Tensor, k: int) -> Tensor:
    """The k largest positive entries of each row."""
    out = torch.zeros_like(h)
    for row, values in enumerate(h.clamp(min=0)):
        for index in values.argsort(descending=True)[:k]:
            out[row, index] = values[index]
    return out


@formula("gemma_scope/gemma-scope-2b-pt-res/embedding")
def _embedding(folder: Path) -> Expected:
    """google/gemma-scope-2b-pt-res: JumpReLU on rows of the embedding, which the model multiplies by sqrt(D)."""
    p = {name: torch.from_numpy(array) for name, array in np.load(folder / "params.npz").items()}
    x = rows(121) * math.sqrt(D)
    h = (x / math.sqrt(D)) @ p["W_enc"] + p["b_enc"]
    codes = torch.where((h > p["threshold"]) & (h > 0), h, 0.0)
    return {"x": x, "codes": codes, "reconstruction": math.sqrt(D) * (codes @ p["W_dec"] + p["b_dec"])}


@formula("gemma_scope_2/gemma-scope-2-1b-pt/clt")
def _gemma_2_cross_layer(folder: Path) -> Expected:
    """circuit_tracer.load_gemma_scope_2_clt, but for all layers; it drops the last one."""
    files = [load_file(folder / f"params_layer_{n}.safetensors") for n in range(3)]
    x = rows(171, 3, ROWS, D)
    codes, outputs = [], []
    for n, p in enumerate(files):
        h = x[n] @ p["w_enc"] + p["b_enc"]
        codes.append(torch.where(h > p["threshold"], h, 0.0))
    for t, p in enumerate(files):
        written = sum(codes[n] @ files[n]["w_dec"][:, t] for n in range(t + 1))
        outputs.append(written + p["b_dec"] + x[t] @ p["affine_skip_connection"])
    return {"x": x, "codes": torch.stack(codes), "outputs": torch.stack(outputs)}


@formula("llama_scope/Llama3_1-8B-Base")
def _llama_scope(folder: Path) -> Expected:
    """Language-Model-SAEs at its release of Llama Scope: from_config folds scales, then norms."""
    config = json.loads((folder / "hyperparams.json").read_text())
    p = load_file(folder / "checkpoints" / "final.safetensors")
    norms = config["dataset_average_activation_norm"]
    s_in, s_out = math.sqrt(D) / norms["in"], math.sqrt(D) / norms["out"]
    encoder_bias, decoder_bias = p["encoder.bias"] / s_in, p["decoder.bias"] / s_out
    decoder = p["decoder.weight"] * s_in / s_out
    decoder_norm = decoder.norm(dim=0)
    encoder, encoder_bias = p["encoder.weight"] * decoder_norm[:, None], encoder_bias * decoder_norm
    decoder = decoder / decoder_norm
    x = rows(205)
    h = x @ encoder.T + encoder_bias
    codes = h.where(h > config["jump_relu_threshold"], 0)
    return {"x": x, "codes": codes, "reconstruction": codes @ decoder.T + decoder_bias}


@formula("llama_scope/Llama-Scope-R1-Distill")
def _r1_distill(folder: Path) -> Expected:
    """Language-Model-SAEs, February 2025, as it trains: scale rows, gate by h |w|, keep h, undo the scale."""
    p = load_file(folder / "sae_weights.safetensors")
    s = math.sqrt(D) / 3.5
    x = rows(225)
    h = (x * s) @ p["encoder.weight"].T + p["encoder.bias"]
    gate = h * p["decoder.weight"].norm(dim=0) > p["log_jumprelu_threshold"].exp()
    f = h * gate
    return {"x": x, "codes": f / s, "reconstruction": (f @ p["decoder.weight"].T + p["decoder.bias"]) / s}


@formula("openmoss/crosscoder")
def _moss_crosscoder(folder: Path) -> Expected:
    """Llamascopium's Crosscoder: sum of what each head finds; with ReLU all heads gate alike."""
    p = load_file(folder / "sae_weights.safetensors")
    scales = [math.sqrt(D) / (2.0 + head) for head in range(3)]
    x = rows(351, ROWS, 3, D)
    h = sum((x[:, head] * scales[head]) @ p["W_E"][head] + p["b_E"][head] for head in range(3))
    assert isinstance(h, Tensor)
    f = h * (h > 0)
    heads = [(f @ p["W_D"][head] + p["b_D"][head]) / scales[head] for head in range(3)]
    return {"x": x.flatten(1), "codes": f, "reconstruction": torch.cat(heads, 1)}


@formula("openmoss")
def _moss(folder: Path) -> Expected:
    """Llamascopium's SparseAutoEncoder in training: normalise, encode, decode, denormalise."""
    config = json.loads((folder / "config.json").read_text())
    p = load_file(folder / "sae_weights.safetensors")
    x = rows(305)
    s_in, s_out = torch.ones(ROWS, 1), torch.ones(ROWS, 1)
    if config["norm_activation"] == "token-wise":
        s_in = s_out = math.sqrt(D) / x.norm(dim=1, keepdim=True)
    elif config["norm_activation"] == "dataset-wise":
        norm = "dataset_average_activation_norm."
        s_in, s_out = (
            s * math.sqrt(D) / p[norm + config[f"hook_point_{end}"]] for s, end in ((s_in, "in"), (s_out, "out"))
        )
    decoder_norm = p["W_D"].norm(dim=1) if config["sparsity_include_decoder_norm"] else torch.ones(len(p["W_D"]))
    score = ((x * s_in) @ p["W_E"] + p["b_E"]) * decoder_norm
    if config["act_fn"] == "relu":
        f = score.clamp(min=0) / decoder_norm
    elif config["act_fn"] == "jumprelu":
        f = score * (score > p["activation_function.log_jumprelu_threshold"].exp()) / decoder_norm
    else:
        f = keep_largest(score, config["top_k"]) / decoder_norm
    reconstruction = (f @ p["W_D"] + p["b_D"]) / s_out
    # in the units that unweave says: those of the model, and of unit decoder rows where k of them are chosen
    unit = decoder_norm if "topk" in config["act_fn"] else 1.0
    return {
        "x": x,
        "codes": f * unit / (s_in if config["norm_activation"] == "dataset-wise" else 1.0),
        "reconstruction": reconstruction,
    }


@formula("openai")
def _openai(folder: Path) -> Expected:
    """openai/sparse_autoencoder, model.py."""
    p = torch.load(next(folder.glob("*.pt")), weights_only=True)
    x = rows(405)
    mu, std = x.mean(dim=-1, keepdim=True), x.std(dim=-1, keepdim=True)
    is_topk = p["activation"] == "TopK"
    z = (x - mu) / (std + 1e-5) if is_topk else x
    h = (z - p["pre_bias"]) @ p["encoder.weight"].T + p["latent_bias"]
    codes = keep_largest(h, p["activation_state_dict"]["k"]) if is_topk else torch.relu(h)
    y = codes @ p["decoder.weight"].T + p["pre_bias"]
    return {"x": x, "codes": codes, "reconstruction": y * std + mu if is_topk else y}


@formula("crosslayer_transcoder")
def _crosslayer(folder: Path) -> Expected:
    """Goreg12345/crosslayer-transcoder, model/clt.py, jumprelu.py, topk.py and standardize.py."""
    model = yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]
    p = load_file(folder / "checkpoint.safetensors")
    x = rows(605, 3, ROWS, D)
    codes, outputs = [], []
    for n in range(3):
        z = (
            (x[n] - p["input_standardizer.mean"][n]) / p["input_standardizer.std"][n]
            if model["input_standardizer"]
            else x[n]
        )
        h = z @ p["encoder.W"][n] + p["encoder.b"][n]
        kind = model["nonlinearity"]["class_path"].rpartition(".")[2]
        if kind == "JumpReLU":
            codes.append(h * ((h > p["nonlinearity.theta"][0, n]) & (h > 0)))
        else:
            codes.append(torch.relu(h) if kind == "ReLU" else keep_largest(h, model["nonlinearity"]["init_args"]["k"]))
    for t in range(3):
        if "decoder.W" in p:
            y = codes[t] @ p["decoder.W"][t] + p["decoder.b"][t]
        else:
            y = torch.stack([codes[n] @ p[f"decoder.W_{t}"][n] for n in range(t + 1)]).sum(0) + p["decoder.b"][t]
        if model["output_standardizer"]:
            y = y * p["output_standardizer.std"][t] + p["output_standardizer.mean"][t]
        outputs.append(y)
    return {"x": x, "codes": torch.stack(codes), "outputs": torch.stack(outputs)}


@formula("crosscoder/minder")
def _minder(folder: Path) -> Expected:
    """jkminder/dictionary_learning, dictionary.py: BatchTopKCrossCoder and CrossCoder."""
    p = load_file(folder / "model.safetensors")
    x = rows(725, ROWS, 2, D)
    is_normalised = not p["activation_mean"].isnan().any()
    z = (x - p["activation_mean"]) * p["activation_global_scale"] if is_normalised else x
    f = torch.relu(torch.einsum("bld,ldf->bf", z, p["encoder.weight"]) + p["encoder.bias"])
    if "threshold" in p:
        f = f * (f * p["decoder.weight"].norm(dim=2).sum(dim=0) > p["threshold"])
    y = torch.einsum("bf,lfd->bld", f, p["decoder.weight"]) + p["decoder.bias"]
    if is_normalised:
        y = y / (p["activation_global_scale"] + 1e-8) + p["activation_mean"]
    return {"x": x.flatten(1), "codes": f, "reconstruction": y.flatten(1)}


@formula("crosscoder")
def _kissane(folder: Path) -> Expected:
    """ckkissane/crosscoder-model-diff-replication, crosscoder.py, and the factors of its analysis of Gemma 2 2B."""
    p = torch.load(folder / "cc_weights.pt", weights_only=True)
    factors = torch.tensor([0.2758961493232058, 0.24422852496546169] if "gemma" in folder.as_posix() else [1.0, 1.0])
    x = rows(705, ROWS, 2, D)
    f = torch.relu(torch.einsum("bsd,sdl->bl", x * factors[:, None], p["W_enc"]) + p["b_enc"])
    y = (torch.einsum("bl,lsd->bsd", f, p["W_dec"]) + p["b_dec"]) / factors[:, None]
    return {"x": x.flatten(1), "codes": f, "reconstruction": y.flatten(1)}
