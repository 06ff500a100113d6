"""A coder on disk: `config.toml` (what it is, where it was trained, checksum) beside `weights.safetensors`."""

from dataclasses import asdict
from pathlib import Path
from typing import get_args

import safetensors.torch
import tomli_w
from safetensors import SafetensorError

from unweave.coders import Origin, Port, SparseCoder, Wiring, architecture
from unweave.coders.wiring import RowNorm
from unweave.config import build, read_toml
from unweave.errors import UserError
from unweave.formats.files import sha256, write_atomically

FORMAT = 2
CONFIG = "config.toml"
WEIGHTS = "weights.safetensors"


def write_coder(folder: Path, coder: SparseCoder) -> None:
    """Write a finished coder; the weights first, so that a config never names weights that are not there."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in coder.state_dict().items()}
    data = safetensors.torch.save(tensors)
    write_atomically(folder / WEIGHTS, data)
    write_config(folder, coder, sha256(data))


def write_config(folder: Path, coder: SparseCoder, checksum: str) -> None:
    """Say what the weights in a folder are; ``checksum`` is that of their file."""
    assert coder.origin is not None, "a coder is saved with the model and site that it belongs to"
    values = {
        "format": FORMAT,
        "type": type(coder).__module__.rpartition(".")[2],
        "model": coder.origin.model,
        "prepend_bos": coder.origin.prepend_bos,
        "reads": [port._asdict() for port in coder.wiring.reads],
        "writes": [port._asdict() for port in coder.wiring.writes],
        "skip": coder.wiring.skip,
        "row_norm": coder.wiring.row_norm,
        "sha256": checksum,
        "coder": {key: value for key, value in asdict(coder.config).items() if value is not None},
    }
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
    coder = cls(build(cls.Config, values["coder"], "coder"), _wiring(values, folder / CONFIG))
    try:
        coder.load_state_dict(safetensors.torch.load(data))
    except (SafetensorError, RuntimeError) as error:
        raise UserError(f"{str(path)!r} does not fit its {CONFIG}: {str(error).splitlines()[0]}") from error
    coder.origin = Origin(values["model"], bool(values.get("prepend_bos", True)))
    return coder.eval().requires_grad_(False)


def coder_checksum(folder: Path) -> str:
    """What tells a coder from others: the checksum of its weights, without reading them."""
    return str(_read_config(folder)["sha256"])


def _read_config(folder: Path) -> dict:
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"there is no coder in {str(folder)!r} (no {CONFIG}); give the folder of a run or of its coder")
    values = read_toml(path)
    missing = {"format", "type", "model", "reads", "writes", "skip", "sha256", "coder"} - values.keys()
    if values.get("format", FORMAT) != FORMAT:
        raise UserError(f"{str(path)!r} has format {values['format']}, this version reads {FORMAT}; train it again")
    if missing:
        raise UserError(f"{str(path)!r} lacks {', '.join(sorted(missing))}; it is not the config of a saved coder")
    if not isinstance(values["coder"], dict):
        raise UserError(f"{str(path)!r} does not have a section [coder]; copy the coder again")
    return values


def _wiring(values: dict, path: Path) -> Wiring:
    try:
        reads, writes = (
            tuple(Port(str(p["site"]), int(p["width"])) for p in values[key]) for key in ("reads", "writes")
        )
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"{str(path)!r} needs a site and a width for each of reads and writes") from error
    row_norm = values.get("row_norm", "none")
    if row_norm not in get_args(RowNorm):
        raise UserError(f"row_norm in {str(path)!r} must be one of {', '.join(get_args(RowNorm))}, got {row_norm!r}")
    return Wiring(reads, writes, bool(values["skip"]), row_norm)
