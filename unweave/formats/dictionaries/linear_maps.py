"""A dictionary that was saved as two linear maps, as several libraries do, each with names of its own.

Tensors are ``{encoder}.weight [L, D]``, ``{encoder}.bias``, ``{decoder}.weight [D, L]`` and ``{decoder}.bias``. With
f = relu(x encoder.weight^T + encoder.bias): y = f decoder.weight^T + decoder.bias.
"""

from pathlib import Path

from unweave.coders import SparseCoder, Wiring
from unweave.formats.dictionaries import Place
from unweave.formats.dictionaries.assemble import assemble
from unweave.formats.tensor_file import exactly, read_tensors


def read_linear_maps(file: Path, encoder: str, decoder: str, place: Place) -> dict[str, SparseCoder]:
    """The ReLU coder of a file whose maps have these names."""
    tensors = read_tensors(file)
    exactly(tensors, axes_of(encoder, decoder), file)
    ours = {
        "W_enc": tensors[f"{encoder}.weight"],
        "b_enc": tensors[f"{encoder}.bias"],
        "W_dec": tensors[f"{decoder}.weight"].T,
        "b_dec": tensors[f"{decoder}.bias"],
    }
    wiring = Wiring.sae(ours["W_enc"].shape[1], place.site)
    settings = {"variant": "april_2024", "centre": False}
    return {file.stem: assemble("relu", settings, wiring, ours, place.model, file)}


def axes_of(encoder: str, decoder: str) -> dict[str, int]:
    """The number of axes of each tensor."""
    return {f"{encoder}.weight": 2, f"{encoder}.bias": 1, f"{decoder}.weight": 2, f"{decoder}.bias": 1}
