"""Temporal SAEs of Lubana et al. (2025, arXiv 2511.01836): a folder with ``conf.yaml``, ``latest_ckpt.safetensors``.

``D [L, d]`` is the decoder, ``b`` its bias, and ``E [d, L]`` the encoder where weights are not tied; ``attn_layers`` is
as in SAELens, see ``saelens_temporal.py``. The config has sections: ``sae.scaling_factor`` is the scale of rows, and
``llm.model_hf_name`` the model. The layer is only in the folder's name, ``layer_{n}``, and x is what leaves block n.
"""

from pathlib import Path

from unweave.coders import SparseCoder, Wiring
from unweave.errors import UserError
from unweave.formats.dictionaries import Place
from unweave.formats.dictionaries.assemble import assemble, matrix
from unweave.formats.dictionaries.config_file import (
    choice,
    flag,
    integer,
    number,
    peek,
    read_yaml_object,
    section,
    text,
)
from unweave.formats.dictionaries.saelens_temporal import our_settings, our_tensors
from unweave.formats.dictionaries.whereabouts import either, layer_in_path
from unweave.formats.tensor_file import read_tensors

CONFIG = "conf.yaml"
WEIGHTS = "latest_ckpt.safetensors"
_NAMES = {"D": "W_dec", "b": "b_dec", "E": "W_enc"}


def recognises(path: Path) -> bool:
    """Whether this is such a folder, or its file of weights or its config."""
    folder = _folder(path)
    said = peek(folder / CONFIG).get("sae") if (folder / WEIGHTS).is_file() else None
    return isinstance(said, dict) and "sae_diff_type" in said


def read(path: Path, place: Place) -> dict[str, SparseCoder]:
    """The one coder of a folder."""
    folder = _folder(path)
    source, weights = folder / CONFIG, folder / WEIGHTS
    config = read_yaml_object(source)
    sae, llm = section(config, "sae", source), section(config, "llm", source)
    choice(sae, "sae_type", source, ("temporal",), "temporal")
    scale = number(sae, "scaling_factor", source)
    tied = flag(sae, "tied_weights", source)
    theirs = {_NAMES.get(name, name): tensor for name, tensor in read_tensors(weights).items()}
    if "b_dec" in theirs:
        theirs["b_dec"] = theirs["b_dec"].flatten()  # the original has it as a row
    n_latents, width = matrix(theirs, "W_dec", weights).shape
    said = integer(llm, "dimin", source)
    if (int(said * number(sae, "exp_factor", source)), said) != (n_latents, width):
        raise UserError(f"'dimin' and 'exp_factor' in {str(source)!r} do not fit D [{n_latents}, {width}] beside it")
    layer = layer_in_path(path, r"layer_(\d+)")
    site = f"blocks.{layer}.hook_resid_post" if layer else ""
    model, site, _ = either(place, Place(text(llm, "model_hf_name", source, ""), site))
    ours = our_tensors(theirs, scale, weights, tied=tied)
    settings = our_settings(sae, n_latents, scale, source)
    return {folder.absolute().name: assemble("temporal", settings, Wiring.sae(width, site), ours, model, weights)}


def _folder(path: Path) -> Path:
    return path.parent if path.name in (CONFIG, WEIGHTS) else path
