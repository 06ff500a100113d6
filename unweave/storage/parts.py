"""Named tensors of which each process holds a part, on disk: safetensors files that any number of processes can read.

``torch.distributed.checkpoint`` writes them, one file per process, with the place of each part in the file's header; no
process ever holds a whole tensor. Tensors that every process has are written once.
"""

import json
import os
import struct
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.formats.files import file_sha256
from unweave.formats.native import WEIGHTS, write_config
from unweave.training.ranks import Ranks

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.bool: "BOOL",
}
"""The names of safetensors."""


def save_parts(folder: Path, tensors: Mapping[str, Tensor], in_parts: Collection[str], ranks: Ranks) -> None:
    """Write into an empty folder; all processes take part. Raises ``OSError`` in all of them where one cannot write."""
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    held = {name: x.detach().cpu() for name, x in tensors.items()}
    held = {name: _placed(x, ranks) if name in in_parts else x for name, x in held.items()}
    try:
        save(held, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as error:
        raise OSError("; ".join(str(reason) for reason, _ in error.failures.values())) from error


def load_parts(folder: Path, in_parts: Collection[str], ranks: Ranks | None) -> dict[str, Tensor]:
    """What was written, whole or this process' part of it; how many processes wrote it does not matter."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = HuggingFaceStorageReader(str(folder))
    tensors, targets = {}, {}
    name: str
    facts: Any
    for name, facts in reader.read_metadata().state_dict_metadata.items():
        shape = list(facts.size)
        if ranks is not None and name in in_parts:
            if shape[0] % ranks.n_latent_parts:
                raise UserError(f"training.latent_parts={ranks.n_latent_parts} must divide the {shape[0]} latents")
            shape[0] //= ranks.n_latent_parts
            tensors[name] = torch.empty(shape, dtype=facts.properties.dtype)
            targets[name] = _placed(tensors[name], ranks)
        else:
            targets[name] = tensors[name] = torch.empty(shape, dtype=facts.properties.dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        load(targets, storage_reader=reader, no_dist=ranks is None)
    return tensors


def write_coder_in_parts(folder: Path, coder: SparseCoder, ranks: Ranks) -> None:
    """Write a finished coder as ``write_coder`` does, when each process holds a part of its latents.

    Weights are latent-major, so a part is a stretch of bytes in the file, which its process writes in its place.
    """
    partial = folder / f".{WEIGHTS}.partial"
    state = {name: x.contiguous().cpu() for name, x in coder.state_dict().items()}
    in_parts = {name for name, x in state.items() if coder.has_row_per_latent(name, x)}
    copies = {name: ranks.n_latent_parts if name in in_parts else 1 for name in state}
    header, starts = _safetensors_header(state, copies)
    if ranks.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(header)
    ranks.wait()
    if ranks.row_part == 0:
        with partial.open("r+b") as file:
            for name, x in state.items():
                if name in in_parts or ranks.latent_part == 0:
                    file.seek(starts[name] + (x.nbytes * ranks.latent_part if name in in_parts else 0))
                    file.write(x.reshape(-1).view(torch.uint8).numpy().data)
            file.flush()
            os.fsync(file.fileno())
    ranks.wait()
    if ranks.rank == 0:
        partial.replace(folder / WEIGHTS)
        write_config(folder, coder, file_sha256(folder / WEIGHTS))
    ranks.wait()


def _safetensors_header(parts: Mapping[str, Tensor], copies: Mapping[str, int]) -> tuple[bytes, dict[str, int]]:
    """The first bytes of a file of tensors that are so many times as long as their parts, and where each begins.

    A length of 8 bytes, then JSON, padded to whole words; offsets count from behind it (huggingface/safetensors).
    """
    entries, end = {}, 0
    for name, x in parts.items():
        shape = [x.shape[0] * copies[name], *x.shape[1:]] if copies[name] > 1 else list(x.shape)
        start, end = end, end + x.nbytes * copies[name]
        entries[name] = {"dtype": _DTYPES[x.dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    head = struct.pack("<Q", len(text)) + text
    return head, {name: len(head) + facts["data_offsets"][0] for name, facts in entries.items()}


def _placed(part: Tensor, ranks: Ranks) -> Tensor:
    """A part of the latents, with its place in the whole; the processes with other rows have the same."""
    from torch.distributed.tensor import DTensor, Replicate, Shard

    return DTensor.from_local(part, ranks.mesh, [Replicate(), Shard(0)], run_check=False)
