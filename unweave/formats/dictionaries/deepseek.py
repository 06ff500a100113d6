"""The SAE of DeepSeek-R1-Distill-Llama-8B by qresearch, and others saved as two linear maps: one ``.pt`` file.

Tensors are ``encoder.weight [L, D]``, ``encoder.bias``, ``decoder.weight [D, L]`` and ``decoder.bias``. With
f = relu(x encoder.weight^T + encoder.bias): y = f decoder.weight^T + decoder.bias. The name of the file says the layer,
after whose block x is taken: ``DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt``. A file ``ae.pt`` or one beside a config is
dictionary_learning's, which has the same names.
"""

from pathlib import Path

from unweave.coders import SparseCoder
from unweave.formats.dictionaries import Place
from unweave.formats.dictionaries.linear_maps import axes_of, read_linear_maps
from unweave.formats.dictionaries.whereabouts import either, in_path
from unweave.formats.tensor_file import names_in

_MAPS = ("encoder", "decoder")


def recognises(path: Path) -> bool:
    """Whether this is such a file, or a folder with one, and not dictionary_learning's."""
    file = _file(path)
    own = file.suffix == ".pt" and file.name != "ae.pt" and not (file.parent / "config.json").exists()
    names = names_in(file) if own else set()
    return axes_of(*_MAPS).keys() <= names and not {"k", "threshold", "pre_bias", "bias", "b_dec"} & names


def read(path: Path, place: Place) -> dict[str, SparseCoder]:
    """The one coder of a file."""
    file = _file(path)
    named = in_path(r"(DeepSeek-R1-Distill-[\w.]+-\d+B)-SAE-l(\d+)", file)
    found = Place(f"deepseek-ai/{named[1]}", f"blocks.{named[2]}.hook_resid_post") if named else Place()
    return read_linear_maps(file, *_MAPS, either(place, found))


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    return next((file for file in sorted(path.glob("*.pt")) if "-SAE-l" in file.name), path)
