"""A coder on disk: `config.toml` (what it is, where it was trained, checksum) beside `weights.safetensors`."""

from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import tomli_w
from safetensors import SafetensorError

from unweave.coders import Origin, SparseCoder, architecture
from unweave.config import build, read_toml
from unweave.errors import UserError
from unweave.formats.files import sha256, write_atomically

FORMAT = 1
CONFIG = "config.toml"
WEIGHTS = "weights.safetensors"


def write_coder(folder: Path, coder: SparseCoder) -> None:
    """Write a finished coder; the weights first, so that a config never names weights that are not there."""
    assert coder.origin is not None, "a coder is saved with the model and site that it belongs to"
    tensors = {name: tensor.contiguous().cpu() for name, tensor in coder.state_dict().items()}
    data = safetensors.torch.save(tensors)
    values = {
        "format": FORMAT,
        "type": type(coder).__module__.rpartition(".")[2],
        "d_model": coder.d_model,
        "model": coder.origin.model,
        "site": coder.origin.site,
        "sha256": sha256(data),
        "coder": asdict(coder.config),
    }
    write_atomically(folder / WEIGHTS, data)
    write_atomically(folder / CONFIG, tomli_w.dumps(values))


def read_coder(folder: Path) -> SparseCoder:
    """The coder that ``write_coder`` wrote, on the CPU, ready for use.

    Raises ``UserError`` where the folder holds no coder, or where the weights are not the ones that were written.
    """
    values = _read_config(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(f"{str(folder)!r} has no {WEIGHTS}; copy the coder again")
    data = path.read_bytes()
    if sha256(data) != values["sha256"]:
        raise UserError(f"{str(path)!r} is damaged: its checksum differs from {CONFIG}; copy or train the coder again")
    cls = architecture(values["type"])
    coder = cls(build(cls.Config, values["coder"], "coder"), values["d_model"])
    try:
        coder.load_state_dict(safetensors.torch.load(data))
    except (SafetensorError, RuntimeError) as error:
        raise UserError(f"{str(path)!r} does not fit its {CONFIG}: {str(error).splitlines()[0]}") from error
    coder.origin = Origin(values["model"], values["site"])
    return coder.eval().requires_grad_(False)


def _read_config(folder: Path) -> dict:
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"there is no coder in {str(folder)!r} (no {CONFIG}); give the folder of a run or of its coder")
    values = read_toml(path)
    missing = {"format", "type", "d_model", "model", "site", "sha256", "coder"} - values.keys()
    if missing:
        raise UserError(f"{str(path)!r} lacks {', '.join(sorted(missing))}; it is not the config of a saved coder")
    if not isinstance(values["d_model"], int) or not isinstance(values["coder"], dict):
        raise UserError(
            f"{str(path)!r} does not have a whole number d_model and a section [coder]; copy the coder again"
        )
    if values["format"] != FORMAT:
        raise UserError(f"{str(path)!r} has format {values['format']}, this version reads {FORMAT}; update unweave")
    return values
