"""A run: a folder that can be re-run from its own config.toml, with everything that was made and measured."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.formats.files import write_atomically
from unweave.formats.native import read_coder
from unweave.storage.latent_index import LatentIndex


class Run:
    """Reads a finished run."""

    def __init__(self, path: str | Path) -> None:
        """``path`` is a folder that ``unweave train`` made."""
        self.path = Path(path).expanduser()
        if not self.path.is_dir():
            raise UserError(f"there is no run folder {str(path)!r}; `unweave train` makes one")
        if not (self.path / "config.toml").is_file():
            raise UserError(
                f"{str(path)!r} is not a run (it has no config.toml); give a folder made by `unweave train`"
            )

    @cached_property
    def coder(self) -> SparseCoder:
        """The trained coder, in units of the model's activations."""
        return read_coder(self.path / "coder")

    @property
    def results(self) -> dict[str, Any]:
        """The figures that were measured on held-out text."""
        return self._json("results.json")

    @property
    def manifest(self) -> dict[str, Any]:
        """Versions, seed, device, data hash and times."""
        return self._json("manifest.json")

    @property
    def curve(self) -> list[dict[str, float]]:
        """The lines of metrics.jsonl."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        return [{name: float(value) for name, value in json.loads(line).items()} for line in lines]

    @cached_property
    def latents(self) -> LatentIndex:
        """The record of every latent: ``run.latents[123]``."""
        return LatentIndex(self.path / "latents.sqlite")

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError as error:
            raise UserError(
                f"{str(self.path)!r} has no {name}; `unweave evaluate` on the run measures it anew"
            ) from error
        except json.JSONDecodeError as error:
            raise UserError(f"{str(self.path / name)!r} is damaged ({error.msg}); measure the run anew") from error


@contextmanager
def new_run_folder(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to write a run into; it takes its own name only when the block ends well.

    Until then it is called ``<name>.partial``. After an error that the user caused nothing is left; after any other
    failure the partial folder stays, so that nothing that was computed is lost.
    """
    check_free(path, overwrite=overwrite)
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except UserError:
        shutil.rmtree(partial)
        raise
    if path.exists():
        shutil.rmtree(path)
    partial.replace(path)


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raise ``UserError`` unless a run may be written to ``path``; only a run is ever overwritten."""
    if not path.exists():
        return
    if not overwrite:
        raise UserError(f"{str(path)!r} exists; choose another --out, or pass --overwrite to replace it")
    if not path.is_dir() or (any(path.iterdir()) and not (path / "config.toml").is_file()):
        raise UserError(f"{str(path)!r} is not a run, so it is not overwritten; choose another --out")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write readable JSON, atomically."""
    write_atomically(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
