"""Checksums that tell whether activations come from the same model, tokenizer and text."""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unweave.formats.files import file_sha256
from unweave.pipelines.workbench import Workbench

_MODEL_FILES = ("config.json", "*.safetensors")
_TOKENIZER_FILES = ("tokenizer*", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model")
NAMES = ("name", "source")
"""Keys under which a section says how something is called, which may change while it stays the same."""


def origin(bench: Workbench) -> dict[str, dict[str, Any]]:
    """What decides which activations there are: model, tokenizer, text and packing."""
    folder, recipe = _folder(bench), bench.recipe
    sources = ", ".join(source.source for source in recipe.text.sources())
    return {
        "model": {
            "name": bench.model.name,
            "dtype": recipe.model.dtype,
            "sha256": _checksum(folder, _MODEL_FILES),
        },
        "tokenizer": {"sha256": _checksum(folder, _TOKENIZER_FILES)},
        "text": {"source": sources, "sha256": bench.corpus.sha256()},
        "packing": {**asdict(recipe.packing), "sequences": recipe.model.sequences},
    }


def _folder(bench: Workbench) -> Path:
    """Where the model's files lie: the folder that it was loaded from, or that of the hub's cache."""
    from transformers.utils.hub import cached_file

    loaded_from = bench.model.model.name_or_path
    config = cached_file(loaded_from, "config.json", local_files_only=True)
    assert config is not None, f"{loaded_from} was loaded and has no config.json"
    return Path(config).parent


def _checksum(folder: Path, patterns: Iterable[str]) -> str:
    """One checksum of the names and contents of all files that match."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}):
        digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()
