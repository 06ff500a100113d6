"""The rows and first weights that all libraries of a comparison start from, and their file."""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import load_file, save_file
from torch import Tensor

ARCHITECTURES = ("relu", "gated", "topk", "batch_topk", "jumprelu", "matryoshka")


class Shape(NamedTuple):
    """Width of the rows, number of latents, rows of a batch, active latents per row."""

    D: int
    L: int
    B: int
    K: int

    @classmethod
    def parse(cls, text: str) -> "Shape":
        return cls(*map(int, text.split(",")))

    def __str__(self) -> str:
        return ",".join(map(str, self))


class Prepared(NamedTuple):
    """What a step starts from; encoder and decoder are latent-major."""

    rows_ND: Tensor
    W_enc_LD: Tensor
    W_dec_LD: Tensor
    b_dec_D: Tensor
    cut: Tensor
    """A scalar: the pre-activation ``(x - b_dec) @ W_enc.T`` above which the wanted number of latents lies."""

    def save(self, path: Path) -> None:
        save_file(self._asdict(), path)

    @classmethod
    def load(cls, path: Path) -> "Prepared":
        # cloned, because tensors that are mapped from the file become resident only when they are read
        return cls(**{name: tensor.clone() for name, tensor in load_file(path).items()})

    def batches(self, shape: Shape) -> Iterator[Tensor]:
        """Batches of rows without end; the rows are read again from the start."""
        return itertools.cycle(self.rows_ND.split(shape.B))


def matryoshka_widths(n_latents: int) -> list[int]:
    """The nested widths of a Matryoshka coder in these comparisons."""
    return [n_latents // part for part in (16, 8, 4, 2, 1)]


def outcome(x_BD: Tensor, y_BD: Tensor, acts: Tensor) -> dict[str, float]:
    """What every worker says of its coder in the end: how far ``y`` is from ``x``, and how many latents wrote it.

    ``loss`` is the squared error summed over D, ``l0`` the number of entries of ``acts`` that are not 0; both per row.
    """
    n_rows = len(x_BD)
    return {"loss": (x_BD - y_BD).square().sum().item() / n_rows, "l0": acts.to_dense().bool().sum().item() / n_rows}


def worker_arguments() -> argparse.Namespace:
    """What every worker of ``benchmarks/step.py`` is told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="file written by Prepared.save")
    parser.add_argument("--shape", type=Shape.parse, required=True, help="D,L,B,K")
    parser.add_argument("--architecture", choices=ARCHITECTURES, required=True)
    parser.add_argument("--variant", default="", help="a setting of the library that its users may choose")
    return parser.parse_args()
