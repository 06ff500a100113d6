"""Small dictionaries with what their own library makes of some rows; runs in the peers' environment.

A case is a folder with a dictionary in its library's own files and ``expected.safetensors``: rows ``x_BD``, dense
activations ``codes_BL`` and ``reconstruction_BD``. This file and its neighbours import nothing of unweave.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

WIDTH, LATENTS, ROWS = 6, 13, 8


class Found(NamedTuple):
    """What a library makes of rows."""

    codes_BL: Tensor
    reconstruction_BD: Tensor


class Library(NamedTuple):
    """What a worker can do in a folder of cases."""

    make: Callable[[Path], None]
    """Write cases of random weights, with what the library makes of them."""
    train: Callable[[Path, int], None]
    """Write cases that the library trained for some steps, with what it makes of them."""
    run: Callable[[Path, Tensor], Found]
    """Load what another program wrote, and run it."""


def main(library: Library) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["make", "train", "answer"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=50)
    told = parser.parse_args()
    if told.action == "make":
        library.make(told.folder)
    elif told.action == "train":
        library.train(told.folder, told.steps)
    else:
        for case in sorted(path for path in told.folder.iterdir() if path.is_dir()):
            save_expected(case, rows(), library.run(case, rows()))


def rows(width: int = WIDTH, count: int = ROWS, seed: int = 7) -> Tensor:
    """Rows with a mean of their own; the first is short, so that thresholds on norms matter."""
    x_BD = 0.3 + 1.5 * torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    x_BD[0] *= 0.01
    return x_BD


@torch.no_grad()
def stir(module: torch.nn.Module, seed: int, scale: float = 0.5) -> None:
    """Give every parameter random values, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


def save_expected(case: Path, x_BD: Tensor, found: Found) -> None:
    tensors = {"x_BD": x_BD, "codes_BL": found.codes_BL, "reconstruction_BD": found.reconstruction_BD}
    if not (found.codes_BL != 0).any():
        raise ValueError(f"no latent of {case} is active")
    save_file(
        {name: tensor.detach().contiguous().float() for name, tensor in tensors.items()}, case / "expected.safetensors"
    )


def batches(steps: int, width: int, batch: int = 128) -> list[Tensor]:
    """Sparse sums of random directions, as rows to train on."""
    generator = torch.Generator().manual_seed(3)
    directions_FD = torch.nn.functional.normalize(torch.randn(2 * width, width, generator=generator), dim=1)
    active = torch.rand(steps, batch, 2 * width, generator=generator) < 0.15
    sizes = 1.0 + torch.rand(active.shape, generator=generator)
    return list((active * sizes) @ directions_FD + 0.1)
