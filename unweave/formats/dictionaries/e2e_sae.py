"""e2e_sae (Braun et al. 2024, arXiv 2405.12241): ``samples_{n}.pt`` beside ``final_config.yaml``; of several the last.

The state dict of several SAEs, each with ``{site}.encoder.0.weight [L, D]``, ``{site}.encoder.0.bias``,
``{site}.decoder.weight [D, L]`` and ``{site}.decoder.bias``, where site is a TransformerLens name with hyphens for its
dots: ``blocks-6-hook_resid_post``. f = relu(x encoder^T + bias); y = f w + decoder.bias, with w the columns of
decoder.weight made unit vectors, which the library does when it is used. ``tlens_model_name`` is the model.
"""

import re
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from unweave.coders import SparseCoder, Wiring
from unweave.errors import UserError
from unweave.formats.dictionaries import Place
from unweave.formats.dictionaries.assemble import assemble
from unweave.formats.dictionaries.config_file import read_yaml_object, text
from unweave.formats.dictionaries.whereabouts import at_layer, either
from unweave.formats.tensor_file import exactly, names_in, read_tensors

_PARTS = {"encoder.0.weight": 2, "encoder.0.bias": 1, "decoder.weight": 2, "decoder.bias": 1}


def recognises(path: Path) -> bool:
    """Whether this is such a file, or a folder with some."""
    file = _file(path)
    return file.suffix == ".pt" and any(name.endswith(".encoder.0.weight") for name in names_in(file))


def read(path: Path, place: Place) -> dict[str, SparseCoder]:
    """The coders of a file, by site; of a folder those of the file after most samples."""
    file = _file(path)
    tensors = read_tensors(file)
    sites = [name.removesuffix(".encoder.0.weight") for name in tensors if name.endswith(".encoder.0.weight")]
    if not sites or (len(sites) > 1 and place.site and "{layer}" not in place.site):
        raise UserError(f"{str(file)!r} has {len(sites)} SAEs, each with its own site; do not say one for all")
    exactly(tensors, {f"{site}.{part}": axes for site in sites for part, axes in _PARTS.items()}, file)
    config_file = file.parent / "final_config.yaml"
    config = read_yaml_object(config_file) if config_file.is_file() else {}
    model = text(config, "tlens_model_name", config_file, "")
    coders = {}
    for site in sites:
        layer = re.search(r"\d+", site)
        own = at_layer(place, int(layer[0]) if layer else 0)
        coders[_name(site)] = _one(tensors, site, either(own, Place(model, _name(site))), file)
    return coders


def _one(tensors: dict[str, Tensor], site: str, place: Place, file: Path) -> SparseCoder:
    W_enc = tensors[f"{site}.encoder.0.weight"]
    ours = {
        "W_enc": W_enc,
        "b_enc": tensors[f"{site}.encoder.0.bias"],
        "W_dec": F.normalize(tensors[f"{site}.decoder.weight"].float(), dim=0).T,
        "b_dec": tensors[f"{site}.decoder.bias"],
    }
    settings = {"variant": "april_2024", "centre": False}
    return assemble("relu", settings, Wiring.sae(W_enc.shape[1], place.site), ours, place.model, file)


def _name(site: str) -> str:
    return site.replace("-", ".")


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    numbered = [
        (match[1], file) for file in path.glob("*.pt") if (match := re.fullmatch(r"samples_(\d+)\.pt", file.name))
    ]
    return max(numbered, key=lambda pair: int(pair[0]), default=("", path))[1]
