"""dictionary_learning (Marks, Karvonen and Mueller): folders with ``ae.pt`` and ``config.json``, one for each trainer.

``config.json`` has ``trainer`` with ``dict_class``, ``k``, ``lm_name``, ``layer`` and ``submodule_name``. By class, and
with nn.Linear weights [out, in], but those called W_ the other way round:

    AutoEncoder            relu((x - bias) encoder^T + encoder.bias); f decoder^T + bias. Their loader divides decoder
                           columns by their norms and multiplies f by them; so does this one
    AutoEncoderNew         relu(x encoder^T + encoder.bias); f decoder^T + decoder.bias, with norms as they are
    GatedAutoEncoder       u = (x - decoder_bias) encoder^T; relu(exp(r_mag) u + mag_bias) where u + gate_bias > 0
    JumpReluAutoEncoder    relu(h) where h = x W_enc + b_enc > threshold [dict_size]; x is not centred
    AutoEncoderTopK        the k largest of relu((x - b_dec) encoder^T + encoder.bias); ``threshold`` is not used
    BatchTopKSAE           the same where it is above ``threshold``, a number
    MatryoshkaBatchTopKSAE likewise, with W_enc and W_dec; ``group_sizes`` says how many latents each prefix adds

A ``threshold`` below 0 was never set, because the run was shorter than its ``threshold_start_step``. Their code then
lets every positive latent pass; here it is read as TopK with the same k, which is what it was trained as. ``b_dec`` may
be called ``bias`` or ``decoder_bias``. A file with ``ae`` in it is a backup of a run that was not finished: what it was
trained on was divided by ``norm_factor``, and biases and thresholds are multiplied by it. ``checkpoints/ae_{step}.pt``
belongs to the config one folder up.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unweave.coders import SparseCoder, Wiring
from unweave.coders.folding import fold_decoder_norms
from unweave.errors import UserError, nearest
from unweave.formats.dictionaries import Place
from unweave.formats.dictionaries.assemble import assemble, matrix
from unweave.formats.dictionaries.config_file import integer, number, peek, read_json_object, section, text
from unweave.formats.dictionaries.dictionary_learning_export import write
from unweave.formats.tensor_file import named_tensors, read_torch, single_value

__all__ = ["read", "recognises", "write"]

CONFIG = "config.json"
WEIGHTS = "ae.pt"
_OURS = {
    "AutoEncoder": "relu",
    "AutoEncoderNew": "relu",
    "GatedAutoEncoder": "gated",
    "JumpReluAutoEncoder": "jumprelu",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "batch_topk",
    "MatryoshkaBatchTopKSAE": "matryoshka",
}
_VARIANTS = {"relu": "april_2024", "gated": "norm_weighted"}
"""Settings with which decoder rows may have any norm."""
_B_DEC = ("b_dec", "bias", "decoder_bias", "decoder.bias")
_NAMES = {"encoder.bias": "b_enc", "gate_bias": "b_enc", "mag_bias": "b_mag"} | dict.fromkeys(_B_DEC, "b_dec")
_SUBMODULES = {"resid": "resid_post", "attn": "attn_out", "attention": "attn_out", "mlp": "mlp_out"}


def recognises(path: Path) -> bool:
    """Whether this is such a folder, its weights, or a folder of several trainers."""
    return any("dict_class" in _trainer(config) for config in map(_config_of, _files(path).values()) if config)


def read(path: Path, place: Place) -> dict[str, SparseCoder]:
    """The coders of every trainer below a folder, or of one."""
    files = _files(path)
    if not files:
        raise UserError(f"there is no {WEIGHTS} in {str(path)!r}; give the folder of a trainer, or of several")
    if len(files) > 1 and place.target:
        raise UserError("dictionary_learning writes what it reads; leave the target out")
    return {name: _read(file, place) for name, file in files.items()}


def _files(path: Path) -> dict[str, Path]:
    """Files of weights by the names of their coders: this one, or those at most three folders down."""
    if path.suffix == ".pt":
        return {path.absolute().parent.name if path.name == WEIGHTS else path.stem: path}
    if (path / WEIGHTS).is_file():
        return {path.absolute().name: path / WEIGHTS}
    found = sorted(file for depth in ("*", "*/*", "*/*/*") for file in path.glob(f"{depth}/{WEIGHTS}"))
    return {file.parent.relative_to(path).as_posix(): file for file in found}


def _config_of(file: Path) -> Path | None:
    """The config beside the weights, or one folder up."""
    folders = list(file.absolute().parents)[:2]
    return next((folder / CONFIG for folder in folders if (folder / CONFIG).is_file()), None)


def _trainer(config: Path | None) -> dict[str, Any]:
    found = peek(config).get("trainer") if config else None
    return found if isinstance(found, dict) else {}


def _read(file: Path, place: Place) -> SparseCoder:
    source = _config_of(file) or file.parent / CONFIG
    trainer = section(read_json_object(source), "trainer", source)
    dict_class = text(trainer, "dict_class", source)
    if dict_class not in _OURS:
        raise UserError(f"{str(source)!r} has the unknown dict_class {dict_class!r}{nearest(dict_class, _OURS)}")
    tensors, factor = _state(file)
    counts = {key: tensors.pop(key) for key in ("k", "group_sizes") if key in tensors}
    tensors = _renamed(tensors, file)
    settings = {"decoder_norm": "free", "centre": dict_class not in ("AutoEncoderNew", "JumpReluAutoEncoder")}
    architecture = _choose(dict_class, tensors, file)
    if architecture in ("topk", "batch_topk", "matryoshka"):
        settings["k"] = _k(trainer, counts.get("k"), source, file)
    if architecture == "matryoshka":
        settings["prefixes"] = _prefixes(counts.get("group_sizes"), tensors["W_dec"].shape[0], file)
    if architecture in _VARIANTS:
        settings["variant"] = _VARIANTS[architecture]
    site = place.site or _site(trainer, source)
    width = matrix(tensors, "W_enc", file).shape[1]
    model = place.model or text(trainer, "lm_name", source, "")
    coder = assemble(architecture, settings, Wiring.sae(width, site), tensors, model, file)
    if factor != 1.0:
        _scale_biases(coder, factor)
    if dict_class == "AutoEncoder" and not torch.allclose(coder.decoder_norms(), torch.ones(coder.n_latents)):
        fold_decoder_norms(coder)
    return coder


def _state(file: Path) -> tuple[dict[str, Tensor], float]:
    """The tensors of a file, and what rows were divided by in training where that is not folded in."""
    content, factor = read_torch(file), 1.0
    if isinstance(content, dict) and isinstance(content.get("ae"), dict):
        factor = number(content, "norm_factor", file, 1.0)
        content = content["ae"]
    if factor <= 0:
        raise UserError(f"'norm_factor' in {str(file)!r} is {factor}, expected a number above 0")
    return named_tensors(content, file), factor


def _renamed(tensors: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    """The tensors by our names, and all with a row per latent."""
    renamed = {_NAMES.get(name, name): tensor for name, tensor in tensors.items()}
    if len(renamed) < len(tensors):
        raise UserError(f"{str(file)!r} has several tensors of one meaning: {', '.join(sorted(tensors))}")
    if "encoder.weight" in tensors:
        renamed["W_enc"] = renamed.pop("encoder.weight")
        renamed["W_dec"] = matrix(tensors, "decoder.weight", file).T
        del renamed["decoder.weight"]
    else:
        renamed["W_enc"] = matrix(tensors, "W_enc", file).T
    matrix(renamed, "W_dec", file)
    return renamed


def _choose(dict_class: str, tensors: dict[str, Tensor], file: Path) -> str:
    """The architecture of ours; takes the threshold away where it is none, and makes what is below 0 a 0."""
    ours = _OURS[dict_class]
    if ours == "jumprelu" and "threshold" in tensors:
        tensors["threshold"] = tensors["threshold"].float().clamp(min=0.0)
    if ours in ("batch_topk", "matryoshka") and not _has_threshold(tensors, file):
        ours = "topk"
    if ours == "topk":
        tensors.pop("threshold", None)
    return ours


def _has_threshold(tensors: Mapping[str, Tensor], file: Path) -> bool:
    return "threshold" in tensors and single_value(tensors["threshold"], "threshold", file) >= 0


def _k(trainer: Mapping[str, Any], found: Tensor | None, source: Path, file: Path) -> int:
    """k as the config and the weights say it, which must be the same."""
    if found is None:
        return integer(trainer, "k", source)
    beside = single_value(found, "k", file)
    k = integer(trainer, "k", source, int(beside))
    if k != beside:
        raise UserError(f"'k' is {k} in {str(source)!r} and {beside:g} in the weights beside it")
    return k


def _prefixes(group_sizes: Tensor | None, n_latents: int, file: Path) -> tuple[float, ...]:
    """Where prefixes end, as shares of all latents."""
    if group_sizes is None or group_sizes.ndim != 1 or group_sizes.sum().item() != n_latents:
        raise UserError(f"'group_sizes' in {str(file)!r} do not add up to its {n_latents} latents")
    ends = group_sizes.cumsum(0).tolist()
    return tuple(end / n_latents for end in ends)


def _site(trainer: Mapping[str, Any], source: Path) -> str:
    """The site that the submodule's name means; the residual stream behind the layer where there is no name."""
    name = trainer.get("submodule_name")
    if isinstance(name, str) and "." in name:
        return name
    layer = trainer.get("layer")
    match = (
        re.fullmatch(r"(resid|attn|attention|mlp)_?(post|out)?_?layer_?(\d+)", name) if isinstance(name, str) else None
    )
    if match:
        return f"layers.{match[3]}.{_SUBMODULES[match[1]]}"
    return f"layers.{layer}.resid_post" if name is None and type(layer) is int and layer >= 0 else ""


@torch.no_grad()
def _scale_biases(coder: SparseCoder, factor: float) -> None:
    """From rows divided by a factor to rows as they are, as their ``scale_biases`` does."""
    for name in (*coder.in_activation_units, "b_dec"):
        getattr(coder, name).mul_(factor)
