"""Crosscoders that compare models: of ckkissane's replication, and of dictionary_learning as extended by jkminder.

ckkissane's have ``cfg.json`` and ``cc_weights.pt``, or ``{n}_cfg.json`` and ``{n}.pt``, with ``W_enc [S, D, L]``,
``b_enc``, ``W_dec [L, S, D]`` and ``b_dec [S, D]``: f = relu(sum_s x_s W_enc_s + b_enc); y_s = f W_dec_s + b_dec_s.
Rows were multiplied by a factor for each model, which no file holds. Those of ``crosscoder-gemma-2-2b-model-diff``,
from its authors' analysis, are folded where the path has that name; any other is read as it is, and reads and writes
rows whose mean norm was made the root of their width.

jkminder's have ``config.json`` and ``model.safetensors`` with ``encoder.weight [S, D, L]``, ``encoder.bias``,
``decoder.weight [S, L, D]``, ``decoder.bias [S, D]``, and for BatchTopK ``k`` and ``threshold``. With
h = relu(sum_s z_s encoder.weight_s + encoder.bias): f = h where h c > threshold, with c by ``code_normalization_id``
the sum over s of the norms of decoder rows (1 CROSSCODER), the norm of all of them together (2 SAE), both weighted
(3 MIXED) or 1 (4 NONE). z = (x - ``activation_mean``) ``activation_global_scale`` and x = z / (scale + 1e-8) + mean
where the mean is not NaN; this is folded. Activations are f; the library's ``get_activations`` has f c. 5 DECOUPLED
gates each model on its own and is refused.

The S parts are the same site of S models, in the order of the crosscoder; as ports they are called ``{site}@0``,
``{site}@1`` and so on, since ports of one coder need names of their own.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unweave.coders import Port, SparseCoder, Wiring
from unweave.errors import UserError
from unweave.formats.dictionaries import Place
from unweave.formats.dictionaries.assemble import assemble
from unweave.formats.dictionaries.config_file import number, peek, read_json_object, text
from unweave.formats.dictionaries.whereabouts import either, folder_name, in_path
from unweave.formats.tensor_file import exactly, names_in, read_tensors, shaped, single_value

_FACTORS = {"crosscoder-gemma-2-2b-model-diff": (0.2758961493232058, 0.24422852496546169)}
"""Factors by which rows of each model were multiplied, by repository."""
_KISSANE = {"W_enc": 3, "b_enc": 1, "W_dec": 3, "b_dec": 2}
_MINDER = {"encoder.weight": 3, "encoder.bias": 1, "decoder.weight": 3, "decoder.bias": 2}
_NORMALISER = {"activation_mean": 2, "activation_std": 2, "activation_global_scale": 0, "target_rms": 0}
_NAMES = ("CROSSCODER", "SAE", "MIXED", "NONE", "DECOUPLED")


def recognises(path: Path) -> bool:
    """Whether this is a folder of either kind, or its tensors."""
    file = _file(path)
    if not file.is_file():
        return False
    if file.suffix == ".pt":
        return _config(file).is_file() and {"d_in", "enc_dtype"} <= peek(_config(file)).keys()
    config = peek(_config(file)) if file.name == "model.safetensors" else {}
    return {"activation_dim", "dict_size"} <= config.keys() and _MINDER.keys() <= names_in(file)


def read(path: Path, place: Place) -> dict[str, SparseCoder]:
    """The one crosscoder of a folder or file."""
    file = _file(path)
    config_file = _config(file)
    config = read_json_object(config_file)
    tensors = read_tensors(file)
    if file.suffix == ".pt":
        name = folder_name(file) if file.name == "cc_weights.pt" else file.stem
        return {name: _kissane(tensors, config, config_file, place, file)}
    return {folder_name(file): _minder(tensors, config, config_file, place, file)}


def _kissane(
    tensors: dict[str, Tensor], config: dict[str, Any], config_file: Path, place: Place, file: Path
) -> SparseCoder:
    exactly(tensors, _KISSANE, file)
    n_sites, width, n_latents = tensors["W_enc"].shape
    shapes = {"b_enc": (n_latents,), "W_dec": (n_latents, n_sites, width), "b_dec": (n_sites, width)}
    shaped(tensors, shapes, file)
    factors = next((_FACTORS[name] for name in _FACTORS if in_path(name, file)), (1.0,) * n_sites)
    if len(factors) != n_sites:
        raise UserError(f"{str(file)!r} has {n_sites} parts, expected {len(factors)} of this repository")
    scale = torch.tensor(factors, dtype=torch.float32)[:, None, None]
    ours = {
        "W_enc": (tensors["W_enc"] * scale).permute(2, 0, 1).flatten(1),
        "b_enc": tensors["b_enc"],
        "W_dec": (tensors["W_dec"] / scale[:, 0]).flatten(1),
        "b_dec": (tensors["b_dec"] / scale[:, 0]).flatten(),
    }
    found = Place(text(config, "model_name", config_file, ""), text(config, "hook_point", config_file, ""))
    place = either(place, found)
    return assemble(
        "relu", {"variant": "april_2024", "centre": False}, _wiring(place, n_sites, width), ours, place.model, file
    )


def _minder(
    tensors: dict[str, Tensor], config: dict[str, Any], config_file: Path, place: Place, file: Path
) -> SparseCoder:
    exactly(tensors, _MINDER, file, k=0, threshold=0, code_normalization_id=0, **_NORMALISER)
    for key in ("encoder_layers", "latent_processor"):
        if config.get(key) is not None:
            raise UserError(f"{str(config_file)!r} sets {key!r}, which has no equal here")
    W_enc, W_dec, b_dec = (tensors[name] for name in ("encoder.weight", "decoder.weight", "decoder.bias"))
    n_sites, width, n_latents = W_enc.shape
    shapes = {
        "encoder.bias": (n_latents,),
        "decoder.weight": (n_sites, n_latents, width),
        "decoder.bias": (n_sites, width),
    }
    shaped(tensors, shapes, file)
    gate = tensors.get("threshold")
    norms = _code_norms(tensors, config, config_file, file)
    mean, factor, divisor = _normaliser(tensors, (n_sites, width), file)
    W_enc = W_enc.float() * factor
    ours = {
        "W_enc": W_enc.permute(2, 0, 1).flatten(1),
        "b_enc": tensors["encoder.bias"] - torch.einsum("sd,sdl->l", mean, W_enc),
        "W_dec": (W_dec.float() / divisor).permute(1, 0, 2).flatten(1),
        "b_dec": (b_dec.float() / divisor + mean).flatten(),
    }
    wiring = _wiring(place, n_sites, width)
    if gate is None:
        return assemble("relu", {"variant": "april_2024", "centre": False}, wiring, ours, place.model, file)
    threshold = single_value(gate, "threshold", file)
    # below 0 everything passes, at 0 and above nothing does that writes nothing
    ours["threshold"] = torch.where(norms > 0, max(0.0, threshold) / norms, 1e30 if threshold >= 0 else 0.0)
    return assemble("jumprelu", {"centre": False}, wiring, ours, place.model, file)


def _code_norms(tensors: dict[str, Tensor], config: dict[str, Any], config_file: Path, file: Path) -> Tensor:
    W_dec = tensors["decoder.weight"].float()
    if "code_normalization_id" in tensors:
        number_of = int(single_value(tensors["code_normalization_id"], "code_normalization_id", file))
        kind = _NAMES[number_of - 1] if 0 < number_of <= len(_NAMES) else str(number_of)
    else:
        kind = text(config, "code_normalization", config_file, "CROSSCODER").upper()
    together, apart = W_dec.norm(dim=(0, 2)), W_dec.norm(dim=2).sum(0)
    if kind == "MIXED":
        alphas = [f"code_normalization_alpha_{part}" for part in ("sae", "cc")]
        return together * number(config, alphas[0], config_file, 1.0) + apart * number(
            config, alphas[1], config_file, 0.1
        )
    known = {"CROSSCODER": apart, "SAE": together, "NONE": torch.ones_like(apart)}
    if kind not in known:
        raise UserError(
            f"{str(file)!r} has code normalisation {kind}; only {', '.join(known)} and MIXED have one "
            "activation for all models"
        )
    return known[kind]


def _normaliser(tensors: dict[str, Tensor], shape: tuple[int, int], file: Path) -> tuple[Tensor, float, float]:
    """The mean that was subtracted, the factor, and the divisor of outputs; 0, 1, 1 where rows were not changed."""
    mean = tensors.get("activation_mean", torch.tensor(torch.nan))
    if mean.isnan().all():
        return torch.zeros(shape, dtype=torch.float32), 1.0, 1.0
    if mean.shape != shape or mean.isnan().any() or "activation_global_scale" not in tensors:
        raise UserError(f"{str(file)!r} has an activation_mean that does not fit its weights, or no scale with it")
    factor = single_value(tensors["activation_global_scale"], "activation_global_scale", file)
    return mean.float(), factor, factor + 1e-8


def _wiring(place: Place, n_sites: int, width: int) -> Wiring:
    return Wiring.crosscoder(*(Port(f"{place.site}@{number}", width) for number in range(n_sites)))


def _config(file: Path) -> Path:
    if file.suffix == ".pt" and file.name != "cc_weights.pt":
        return file.with_name(f"{file.stem}_cfg.json")
    return file.with_name("cfg.json" if file.suffix == ".pt" else "config.json")


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    first = path / "cc_weights.pt"
    return first if first.is_file() else path / "model.safetensors"
