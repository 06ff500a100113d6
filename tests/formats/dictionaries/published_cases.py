"""Tiny dictionaries in the layouts of published ones, with what their libraries or their formulas make of some rows.

``golden/<format>/theirs/...`` has folders named as on the hub; the one to read has ``expected.safetensors``. What is
expected has rows x, dense codes and a reconstruction; of several layers, as their first axis, and then outputs.
"""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from unweave.coders import SparseCoder
from unweave.formats.dictionaries import Place, formats

from . import golden_cases

GOLDEN = golden_cases.GOLDEN
FORMATS = tuple(sorted(path.name for path in GOLDEN.iterdir() if path.name not in golden_cases.FORMATS))
PLACE = Place("some/model", "blocks.{layer}.hook_resid_pre")
"""For those that say nothing of where they belong."""


def cases() -> list[tuple[str, str]]:
    """The format and the folder of each case, below ``theirs``."""
    found = []
    for format in FORMATS:
        top = GOLDEN / format / "theirs"
        found += [(format, str(file.parent.relative_to(top))) for file in sorted(top.rglob("expected.safetensors"))]
    return found


def folder(format: str, case: str) -> Path:
    return GOLDEN / format / "theirs" / case


def read(format: str, case: str, place: Place = Place()) -> dict[str, SparseCoder]:  # noqa: B008
    return formats()[format].read(folder(format, case), place)


def expected(format: str, case: str) -> dict[str, Tensor]:
    return load_file(folder(format, case) / "expected.safetensors")
