"""BatchTopK (bartbussmann): a folder with ``sae.pt`` and ``config.json``.

Tensors are ``W_enc [D, L]``, ``W_dec [L, D]``, ``b_enc``, ``b_dec``; for JumpReLU ``jumprelu.log_threshold [L]``. By
``sae_type``, with z the row, of which with ``input_unit_norm`` the mean was taken away and the rest divided by its
spread plus 1e-5, D - 1 in the variance:

    vanilla            f = relu((z - b_dec) W_enc + b_enc)
    topk, batchtopk    f keeps the ``top_k`` largest positive entries of (z - b_dec) W_enc; b_enc is not used
    jumprelu           f = relu(h) where relu(h) > exp(log_threshold), h = z W_enc + b_enc

z_hat = f W_dec + b_dec, and the spread and the mean are put back. ``batchtopk`` keeps k of each row: the file has no
threshold, and this is what the library does to a row on its own. ``hook_point`` is the site.
"""

from pathlib import Path
from typing import Any

import torch

from unweave.coders import SparseCoder, Wiring
from unweave.formats.dictionaries import Place
from unweave.formats.dictionaries.assemble import assemble
from unweave.formats.dictionaries.config_file import choice, flag, integer, peek, read_json_object, text
from unweave.formats.dictionaries.whereabouts import either, folder_name
from unweave.formats.tensor_file import exactly, read_tensors

_AXES = {"W_enc": 2, "b_enc": 1, "W_dec": 2, "b_dec": 1}
_KINDS = ("vanilla", "topk", "batchtopk", "jumprelu")


def recognises(path: Path) -> bool:
    """Whether this is such a folder, or its tensors."""
    file = _file(path)
    is_there = file.name == "sae.pt" and file.is_file()
    return is_there and {"sae_type", "act_size", "dict_size"} <= peek(file.parent / "config.json").keys()


def read(path: Path, place: Place) -> dict[str, SparseCoder]:
    """The one coder of a folder."""
    file = _file(path)
    config_file = file.parent / "config.json"
    config = read_json_object(config_file)
    tensors = read_tensors(file)
    kind = choice(config, "sae_type", config_file, _KINDS)
    log_threshold = {"jumprelu.log_threshold": 1} if kind == "jumprelu" else {}
    exactly(tensors, {**_AXES, **log_threshold}, file)
    found = Place(text(config, "model_name", config_file, ""), text(config, "hook_point", config_file, ""))
    place = either(place, found)
    row_norm = "layer_norm" if flag(config, "input_unit_norm", config_file, False) else "none"
    plain = Wiring.sae(tensors["W_enc"].shape[0], place.site)
    wiring = Wiring(plain.reads, plain.writes, row_norm=row_norm)
    ours = {name: tensors[name] for name in _AXES} | {"W_enc": tensors["W_enc"].T}
    settings: dict[str, Any] = {"centre": kind != "jumprelu"}
    if kind == "vanilla":
        name, settings = "relu", settings | {"variant": "april_2024"}
    elif kind == "jumprelu":
        name, ours = "jumprelu", ours | {"threshold": tensors["jumprelu.log_threshold"].float().exp()}
    else:
        name, settings = "topk", settings | {"k": integer(config, "top_k", config_file), "decoder_norm": "free"}
        ours["b_enc"] = torch.zeros(tensors["W_enc"].shape[1])
    return {folder_name(file): assemble(name, settings, wiring, ours, place.model, file)}


def _file(path: Path) -> Path:
    return path / "sae.pt" if path.is_dir() else path
