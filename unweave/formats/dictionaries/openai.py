"""OpenAI's coders of GPT-2 small (Gao et al. 2024, arXiv 2406.04093): ``{location}/autoencoders/{layer}.pt``.

A state dict with ``pre_bias [D]``, ``encoder.weight [L, D]``, ``latent_bias [L]``, ``decoder.weight [D, L]``, counters,
and the text ``activation``; without it the activation is ReLU. With h = (z - pre_bias) encoder.weight^T + latent_bias:
f = relu(h) for ``ReLU``, and for ``TopK`` the k largest entries of relu(h) with k in ``activation_state_dict``;
z_hat = f decoder.weight^T + pre_bias. z is x for ReLU. For TopK each row was normalised, z = (x - mean) / (std + 1e-5)
with D - 1 in the variance, and x_hat = z_hat std + mean (``sparse_autoencoder/model.py`` in openai/sparse_autoencoder).
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from unweave.coders import SparseCoder, Wiring
from unweave.errors import UserError
from unweave.formats.dictionaries import Place
from unweave.formats.dictionaries.assemble import assemble
from unweave.formats.dictionaries.config_file import choice, integer, section
from unweave.formats.dictionaries.whereabouts import either, in_path
from unweave.formats.tensor_file import exactly, named_tensors, names_in, read_torch

_AXES = {"pre_bias": 1, "encoder.weight": 2, "latent_bias": 1, "decoder.weight": 2}
_COUNTERS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
_POINTS = {
    "mlp_post_act": "mlp.hook_post",
    "resid_delta_attn": "hook_attn_out",
    "resid_delta_mlp": "hook_mlp_out",
    "resid_post_attn": "hook_resid_mid",
    "resid_post_mlp": "hook_resid_post",
}


def recognises(path: Path) -> bool:
    """Whether this is such a file, or a folder with one for each layer."""
    return bool(_files(path))


def read(path: Path, place: Place) -> dict[str, SparseCoder]:
    """The coder of a file, or those of a folder, by the names of their files."""
    return {file.stem: _read_file(file, place) for file in _files(path)}


def _read_file(file: Path, place: Place) -> SparseCoder:
    content = read_torch(file)
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{str(file)!r} holds no tensors by name; give the state dict of a dictionary")
    activation = choice(content, "activation", file, ("ReLU", "TopK"), "ReLU")
    details: dict[str, Any] = section(content, "activation_state_dict", file, {})
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if other := sorted(content.keys() - tensors.keys() - {"activation", "activation_state_dict"}):
        raise UserError(f"{other[0]!r} in {str(file)!r} is {type(content[other[0]]).__name__}, expected a tensor")
    tensors = named_tensors({name: value for name, value in tensors.items() if name not in _COUNTERS}, file)
    exactly(tensors, _AXES, file)
    ours = {
        "W_enc": tensors["encoder.weight"],
        "b_enc": tensors["latent_bias"],
        "W_dec": tensors["decoder.weight"].T,
        "b_dec": tensors["pre_bias"],
    }
    place = either(place, _place(file))
    width = tensors["encoder.weight"].shape[1]
    plain = Wiring.sae(width, place.site)
    if activation == "ReLU":
        return assemble("relu", {"variant": "april_2024", "centre": True}, plain, ours, place.model, file)
    choice(details, "postact_fn", file, ("ReLU",), "ReLU")
    settings = {"k": integer(details, "k", file), "centre": True, "decoder_norm": "free"}
    wiring = Wiring(plain.reads, plain.writes, row_norm="layer_norm")
    return assemble("topk", settings, wiring, ours, place.model, file)


def _place(file: Path) -> Place:
    location = in_path(r"(mlp_post_act|resid_delta_attn|resid_delta_mlp|resid_post_attn|resid_post_mlp)", file)
    if location is None:
        return Place()
    return Place("gpt2", f"blocks.{file.stem}.{_POINTS[location[1]]}" if file.stem.isdigit() else "")


def _files(path: Path) -> list[Path]:
    files = sorted(path.glob("*.pt")) if path.is_dir() else [path]
    return [file for file in files if file.suffix == ".pt" and {"pre_bias", "latent_bias"} <= names_in(file)]
