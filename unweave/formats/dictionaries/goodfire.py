"""Goodfire's SAEs of Llama 3: one ``.pt`` or ``.pth`` file.

Tensors are ``encoder_linear.weight [L, D]``, ``encoder_linear.bias``, ``decoder_linear.weight [D, L]`` and
``decoder_linear.bias``. With f = relu(x encoder_linear.weight^T + encoder_linear.bias):
y = f decoder_linear.weight^T + decoder_linear.bias. The name of the file says the model and the layer, after whose
block x is taken: ``Llama-3.1-8B-Instruct-SAE-l19.pth``.
"""

from pathlib import Path

from unweave.coders import SparseCoder
from unweave.formats.dictionaries import Place
from unweave.formats.dictionaries.linear_maps import read_linear_maps
from unweave.formats.dictionaries.whereabouts import either, in_path
from unweave.formats.tensor_file import names_in

_MAPS = ("encoder_linear", "decoder_linear")


def recognises(path: Path) -> bool:
    """Whether this is such a file, or a folder with one."""
    file = _file(path)
    return file.suffix in (".pt", ".pth") and {"encoder_linear.weight", "decoder_linear.weight"} <= names_in(file)


def read(path: Path, place: Place) -> dict[str, SparseCoder]:
    """The one coder of a file."""
    file = _file(path)
    named = in_path(r"(Llama-3\.\d-\d+B-Instruct)-SAE-l(\d+)", file)
    found = Place(f"meta-llama/{named[1]}", f"blocks.{named[2]}.hook_resid_post") if named else Place()
    return read_linear_maps(file, *_MAPS, either(place, found))


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    return next((file for file in sorted(path.glob("*.pt*")) if "-SAE-l" in file.name), path)
