"""Dictionaries that other libraries wrote, and coders of ours that they have read, with what they made of some rows.

``golden/<format>/theirs/<case>`` is what the library wrote, ``golden/<format>/ours/<case>`` what we wrote and it read.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import load_file
from torch import Tensor

from unweave.coders import SparseCoder
from unweave.formats.dictionaries import Place, formats

GOLDEN = Path(__file__).parent / "golden"
FORMATS = ("saelens", "sparsify", "dictionary_learning")


class Expected(NamedTuple):
    """Rows, and what the other library makes of them."""

    x_BD: Tensor
    codes_BL: Tensor
    reconstruction_BD: Tensor


def cases(whose: str) -> list[tuple[str, str]]:
    """Formats and names of the cases that are ``theirs`` or ``ours``."""
    folders = [folder for format in FORMATS for folder in sorted((GOLDEN / format / whose).iterdir())]
    return [(folder.parent.parent.name, folder.name) for folder in folders]


def expected(folder: Path) -> Expected:
    return Expected(**load_file(folder / "expected.safetensors"))


def readable(coder: SparseCoder, x_BD: Tensor) -> Tensor:
    """Rows as a coder reads them: as two sequences if it reads sequences, which is what its library was given."""
    return x_BD.unflatten(0, (2, -1)) if coder.reads_sequences else x_BD


def path_of(format: str, whose: str, case: str) -> Path:
    """What is to be read of a case; one has its weights in a folder of checkpoints."""
    folder = GOLDEN / format / whose / case
    return next(folder.glob("checkpoints/*.pt"), folder)


def read(format: str, whose: str, case: str) -> SparseCoder:
    (coder,) = formats()[format].read(path_of(format, whose, case), Place()).values()
    return coder


def verified() -> Iterator[tuple[str, str, bool, bool]]:
    """Each format with an architecture of ours: whether reading it and writing it agree with the library's own."""
    for format in FORMATS:
        kinds = {type(read(name, "theirs", case)).__module__ for name, case in cases("theirs") if name == format}
        readable = {kind.rpartition(".")[2] for kind in kinds}
        writable = {case.partition("-")[0] for name, case in cases("ours") if name == format}
        for architecture in sorted(readable | writable):
            yield format, architecture, architecture in readable, architecture in writable
