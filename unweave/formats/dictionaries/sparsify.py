"""EleutherAI's sparsify: a folder per hookpoint with ``cfg.json`` and ``sae.safetensors``, below one ``config.json``.

``encoder.weight`` [num_latents, d_in], ``encoder.bias``, ``W_dec`` [num_latents, d_in], ``b_dec`` [d_in] and, with
``skip_connection``, ``W_skip`` [d_in, d_in]. With x_in = x, less b_dec unless ``transcode``, and h = relu(x_in
encoder.weight^T + encoder.bias), ``topk`` keeps the k largest of a row, ``groupmax`` the largest of each of k runs of
neighbours; what is written is f W_dec + b_dec, plus x W_skip^T. With ``signed``, which version 1 no longer has, the k
with the largest magnitude are kept with their sign, without the relu. ``num_latents`` 0 means d_in * expansion_factor.

The folder's name is the hookpoint: the path of a module within the base model, such as ``layers.10.mlp``. An SAE reads
and writes what leaves that module; a coder with ``transcode`` reads what enters it and writes what leaves it. A block's
output, ``layers.10`` or ``h.10``, is our ``layers.10.resid_post``. Behind the hookpoint may be ``/seed3``, one of
several coders. ``config.json`` in the root says the model. A coder of ours is written to a folder named by its site;
sparsify finds modules by paths, so rename it to the module's where it is to be used there.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from unweave.coders import Port, SparseCoder, Wiring
from unweave.coders.group_max import GroupMaxConfig
from unweave.coders.k_schedule import FallingKConfig
from unweave.errors import UserError
from unweave.formats.dictionaries import Place
from unweave.formats.dictionaries.assemble import assemble, matrix
from unweave.formats.dictionaries.config_file import choice, flag, integer, peek, read_json_object
from unweave.formats.dictionaries.disassemble import (
    architecture_of,
    cannot_hold,
    check_sites,
    encoder_bias,
    model_of,
    plain,
)
from unweave.formats.files import write_atomically
from unweave.formats.tensor_file import read_tensors

CONFIG = "cfg.json"
WEIGHTS = "sae.safetensors"
RUN = "config.json"
_NAMES = {"encoder.weight": "W_enc", "encoder.bias": "b_enc"}
_TYPES = ("topk", "archetypal", "hierarchical_topk", "group_max")


def recognises(path: Path) -> bool:
    """Whether this is such a folder, one of its files, or a folder of several."""
    return bool(_folders(path))


def read(path: Path, place: Place) -> dict[str, SparseCoder]:
    """The coders of every hookpoint below a folder, or of one."""
    folders = _folders(path)
    if not folders:
        raise UserError(f"there is no folder with {CONFIG} and {WEIGHTS} in {str(path)!r}")
    if len(folders) > 1 and (place.site or place.target):
        raise UserError(f"{str(path)!r} holds {len(folders)} coders, so that one site does not do; give one's folder")
    return {name: _read(folder, name, place) for name, folder in folders.items()}


def write(coder: SparseCoder, folder: Path) -> None:
    """Write to a folder in ``folder``, named by the site; raises ``UserError`` for what sparsify cannot hold."""
    check_sites(coder, "sparsify")
    ours, wiring = architecture_of(coder), coder.wiring
    if ours not in _TYPES:
        raise cannot_hold("sparsify", f"a coder of type {ours}", f"types {', '.join(_TYPES)}")
    if wiring.row_norm != "none":
        raise cannot_hold("sparsify", f"a coder with row_norm {wiring.row_norm}", "coders that read rows as they are")
    if wiring.d_read != wiring.d_write:
        widths = f"a coder from width {wiring.d_read} to {wiring.d_write}"
        raise cannot_hold("sparsify", widths, "coders of one width")
    transcodes = wiring.reads != wiring.writes
    tensors: dict[str, Tensor] = {
        "encoder.weight": coder.W_enc,
        "encoder.bias": encoder_bias(coder, centred=not transcodes),
        "W_dec": coder.W_dec,
        "b_dec": coder.b_dec,
    }
    if coder.W_skip is not None:
        tensors["W_skip"] = coder.W_skip
    home = folder / _hookpoint(wiring)
    write_atomically(home / WEIGHTS, safetensors.torch.save(plain(tensors)))
    write_atomically(home / CONFIG, json.dumps(_config(coder, transcodes), indent=1) + "\n")
    run = peek(folder / RUN) | {"model": model_of(coder)}
    write_atomically(folder / RUN, json.dumps(run, indent=1) + "\n")


def _folders(path: Path) -> dict[str, Path]:
    """Folders of coders by hookpoint: this one, or those in it; the name of one with a seed has two parts."""
    folder = path.parent if path.name in (CONFIG, WEIGHTS) else path
    if (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file():
        return {_name(folder): folder}
    found = sorted(file.parent for depth in ("*", "*/seed*") for file in folder.glob(f"{depth}/{WEIGHTS}"))
    return {_name(home): home for home in found if (home / CONFIG).is_file()}


def _name(folder: Path) -> str:
    folder = folder.absolute()
    return f"{folder.parent.name}/{folder.name}" if folder.name.startswith("seed") else folder.name


def _read(folder: Path, name: str, place: Place) -> SparseCoder:
    config, source = read_json_object(folder / CONFIG), folder / CONFIG
    tensors = {_NAMES.get(key, key): tensor for key, tensor in read_tensors(folder / WEIGHTS).items()}
    W_enc = matrix(tensors, "W_enc", folder / WEIGHTS)
    transcodes, skips = (flag(config, key, source, False) for key in ("transcode", "skip_connection"))
    _check_sizes(config, W_enc, source)
    wiring = _wiring(name.partition("/")[0], W_enc.shape[1], place, transcodes, skips)
    architecture, settings = _architecture(config, source)
    settings["centre"] = not transcodes and not skips
    coder = assemble(architecture, settings, wiring, tensors, place.model or _model(folder), folder / WEIGHTS)
    if skips and not transcodes:  # a coder with a skip path does not centre, so its bias has to
        coder.shift_input(coder.b_dec)
    return coder


def _check_sizes(config: Mapping[str, Any], W_enc: Tensor, source: Path) -> None:
    d_in = integer(config, "d_in", source)
    n_latents = integer(config, "num_latents", source, 0) or d_in * integer(config, "expansion_factor", source, 32)
    if (n_latents, d_in) != tuple(W_enc.shape):
        sizes = f"{n_latents} latents of width {d_in}"
        raise UserError(f"{str(source)!r} says {sizes}, but the encoder beside it has shape {list(W_enc.shape)}")


def _wiring(hookpoint: str, width: int, place: Place, transcodes: bool, skips: bool) -> Wiring:
    block = re.fullmatch(r"(?:layers|h)\.(\d+)", hookpoint)
    leaving = f"layers.{block[1]}.resid_post" if block else hookpoint
    reads = place.site or (f"{hookpoint}:in" if transcodes else leaving)
    writes = (place.target or f"{hookpoint}:out") if transcodes else reads
    return Wiring((Port(reads, width),), (Port(writes, width),), skips)


def _architecture(config: Mapping[str, Any], source: Path) -> tuple[str, dict[str, Any]]:
    settings: dict[str, Any] = {"k": integer(config, "k", source, 32), "decoder_norm": "free"}
    if choice(config, "activation", source, ("topk", "groupmax"), "topk") == "groupmax":
        return "group_max", settings
    if flag(config, "signed", source, False):
        return "abs_topk", settings
    if flag(config, "multi_topk", source, False):
        settings["multi_k"] = 4
    return "topk", settings


def _model(folder: Path) -> str:
    """The model that the run's config names, which is one folder up, or two where there are seeds."""
    for parent in list(folder.absolute().parents)[:2]:
        model = peek(parent / RUN).get("model")
        if isinstance(model, str):
            return model
    return ""


def _hookpoint(wiring: Wiring) -> str:
    """The folder's name, from which reading makes the same sites."""
    reads, writes = wiring.reads[0].site, wiring.writes[0].site
    if reads == writes:
        block = re.fullmatch(r"(layers\.\d+)\.resid_post", reads)
        return block[1] if block else reads.removesuffix(":out")
    for entering, leaving in ((":in", ":out"), ("_in", "_out")):
        if reads.endswith(entering) and writes == reads.removesuffix(entering) + leaving:
            return reads.removesuffix(entering)
    raise cannot_hold(
        "sparsify", f"a transcoder from {reads} to {writes}", "those from what enters a module to what leaves it"
    )


def _config(coder: SparseCoder, transcodes: bool) -> dict[str, Any]:
    assert isinstance(coder.config, FallingKConfig | GroupMaxConfig)
    return {
        "activation": "groupmax" if isinstance(coder.config, GroupMaxConfig) else "topk",
        "expansion_factor": max(1, coder.n_latents // coder.d_model),
        "normalize_decoder": coder.config.decoder_norm == "unit",
        "num_latents": coder.n_latents,
        "k": coder.config.k,
        "multi_topk": False,  # it is for training, and their forward would return what 4 k latents write
        "skip_connection": coder.W_skip is not None,
        "transcode": transcodes,
        "d_in": coder.d_model,
    }
