"""SAEs of attention by Connor Kissane and Robert Krzyzanowski (2024): ``{name}.pt`` beside ``{name}_cfg.json``.

Tensors are ``W_enc [D, L]``, ``b_enc``, ``W_dec [L, D]`` and ``b_dec``, where D is the heads' outputs before they are
mixed, one head after another. f = relu((x - b_dec) W_enc + b_enc); y = f W_dec + b_dec. The config has ``act_name``,
the site, and ``act_size`` and ``dict_size``.
"""

from pathlib import Path

from unweave.coders import SparseCoder, Wiring
from unweave.errors import UserError
from unweave.formats.dictionaries import Place
from unweave.formats.dictionaries.assemble import assemble
from unweave.formats.dictionaries.config_file import integer, peek, read_json_object, text
from unweave.formats.dictionaries.whereabouts import either
from unweave.formats.tensor_file import exactly, read_tensors

_AXES = {"W_enc": 2, "b_enc": 1, "W_dec": 2, "b_dec": 1}


def recognises(path: Path) -> bool:
    """Whether this is such a file, or a folder with some."""
    return bool(_files(path))


def read(path: Path, place: Place) -> dict[str, SparseCoder]:
    """The coder of a file, or those of a folder, by the names of their files."""
    return {file.stem: _read_file(file, place) for file in _files(path)}


def _read_file(file: Path, place: Place) -> SparseCoder:
    config_file = _config(file)
    config = read_json_object(config_file)
    tensors = read_tensors(file)
    exactly(tensors, _AXES, file)
    shape = integer(config, "act_size", config_file), integer(config, "dict_size", config_file)
    if tensors["W_enc"].shape != shape:
        raise UserError(
            f"'W_enc' in {str(file)!r} has shape {list(tensors['W_enc'].shape)}, its config says {list(shape)}"
        )
    place = either(place, Place(text(config, "model_name", config_file, ""), text(config, "act_name", config_file)))
    ours = {**tensors, "W_enc": tensors["W_enc"].T}
    settings = {"variant": "april_2024", "centre": True}
    return assemble("relu", settings, Wiring.sae(shape[0], place.site), ours, place.model, file)


def _config(file: Path) -> Path:
    return file.with_name(f"{file.stem}_cfg.json")


def _files(path: Path) -> list[Path]:
    files = sorted(path.glob("*.pt")) if path.is_dir() else [path]
    with_config = [file for file in files if file.suffix == ".pt" and file.is_file() and _config(file).is_file()]
    return [file for file in with_config if {"act_name", "act_size"} <= peek(_config(file)).keys()]
