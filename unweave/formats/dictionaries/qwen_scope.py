"""Qwen Scope: files ``layer{n}.sae.pt`` in a folder ``SAE-Res-{model}-W{n}K-L0_{k}``.

Tensors are ``W_enc [L, D]``, ``b_enc``, ``W_dec [D, L]`` and ``b_dec``. f keeps the k largest positive entries of
x W_enc^T + b_enc in each row; y = f W_dec^T + b_dec. b_dec is not subtracted from x. k is only in the folder's name,
and x is what leaves block n.
"""

import re
from pathlib import Path

from unweave.coders import SparseCoder, Wiring
from unweave.errors import UserError
from unweave.formats.dictionaries import Place
from unweave.formats.dictionaries.assemble import assemble
from unweave.formats.dictionaries.whereabouts import either, in_path
from unweave.formats.tensor_file import exactly, names_in, read_tensors

_AXES = {"W_enc": 2, "b_enc": 1, "W_dec": 2, "b_dec": 1}


def recognises(path: Path) -> bool:
    """Whether this is such a file, or a folder with some."""
    return any(_AXES.keys() <= names_in(file) for file in _files(path)[:1])


def read(path: Path, place: Place) -> dict[str, SparseCoder]:
    """The coder of a file, or those of a folder, as ``layers.{n}``."""
    return {f"layers.{_layer(file)}": _read_file(file, place) for file in _files(path)}


def _read_file(file: Path, place: Place) -> SparseCoder:
    folder = in_path(r"SAE-Res-([\w.-]+)-W\d+K-L0_(\d+)", file)
    if folder is None:
        raise UserError(
            f"{str(file)!r} does not say how many latents a row has; keep it in its folder, whose name "
            "ends in -L0_ and that number"
        )
    tensors = read_tensors(file)
    exactly(tensors, _AXES, file)
    place = either(place, Place(f"Qwen/{folder[1]}", f"blocks.{_layer(file)}.hook_resid_post"))
    ours = {**tensors, "W_dec": tensors["W_dec"].T}
    settings = {"k": int(folder[2]), "centre": False, "decoder_norm": "free"}
    wiring = Wiring.sae(tensors["W_enc"].shape[1], place.site)
    return assemble("topk", settings, wiring, ours, place.model, file)


def _layer(file: Path) -> int:
    match = re.fullmatch(r"layer(\d+)\.sae\.pt", file.name)
    return int(match[1]) if match else -1


def _files(path: Path) -> list[Path]:
    files = list(path.glob("layer*.sae.pt")) if path.is_dir() else [path]
    return sorted((file for file in files if _layer(file) >= 0), key=_layer)
