"""The vocabulary: axis letters, and the small records that several rooms share.

Axis letters, everywhere: B rows, T positions, D model width, L latents, K active per row, V vocabulary; N sequences of
a token batch, E active entries of a batch of codes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Document(NamedTuple):
    """One text and the name of where it came from."""

    name: str
    text: str


class TokenBatch(NamedTuple):
    """Sequences of equal length, packed from documents."""

    token_ids: Int[Tensor, "N T"]
    document_ids: Int[Tensor, "N T"]
    """Which document each token came from, counted in reading order."""
    is_content: Bool[Tensor, "N T"]
    """False at special tokens that packing added, whose activations a coder is usually not trained on."""


@dataclass(frozen=True)
class Rows:
    """Activations at some sites with sequence and position flattened, and where each row came from."""

    activations: Mapping[str, Float[Tensor, "B _"]]
    """Site name to its rows, all with the same B."""
    token_ids: Int[Tensor, " B"]
    document_ids: Int[Tensor, " B"]
    sequences: Int[Tensor, " B"]
    """Index of the row's sequence within its token batch."""
    positions: Int[Tensor, " B"]
    """Index of the row's token within its sequence."""

    def __len__(self) -> int:
        return self.token_ids.shape[0]


@dataclass(frozen=True)
class Codes:
    """The sparse activations of a batch, as compressed sparse rows; entries of a row are sorted by latent id."""

    values: Float[Tensor, " E"]
    latent_ids: Int[Tensor, " E"]
    row_offsets: Int[Tensor, " B_plus_1"]
    """Row b owns entries row_offsets[b] to row_offsets[b+1]."""
    n_latents: int

    @property
    def n_rows(self) -> int:
        return self.row_offsets.shape[0] - 1

    @property
    def density(self) -> float:
        """Share of the B x L grid that is active."""
        return self.values.shape[0] / max(1, self.n_rows * self.n_latents)

    @cached_property
    def row_ids(self) -> Int[Tensor, " E"]:
        """The row of each entry."""
        rows = torch.arange(self.n_rows, device=self.row_offsets.device)
        return rows.repeat_interleave(self.row_offsets.diff(), output_size=self.values.shape[0])

    @cached_property
    def by_latent(self) -> "LatentOrder":
        """The same entries in the order of their latents, sorted once and shared by both weight gradients."""
        counts = torch.bincount(self.latent_ids, minlength=self.n_latents)
        return LatentOrder(_stable_order(self.latent_ids, self.n_latents), counts.cumsum(0) - counts)

    def with_values(self, values: Float[Tensor, " E"]) -> "Codes":
        """The same active entries with other values."""
        codes = Codes(values, self.latent_ids, self.row_offsets, self.n_latents)
        codes.__dict__.update({k: v for k, v in self.__dict__.items() if k in ("row_ids", "by_latent")})
        return codes

    def dense(self) -> Float[Tensor, "B L"]:
        """The full matrix, differentiable in ``values``; for small batches, tests and the kernels' dense route."""
        grid = self.values.new_zeros(self.n_rows, self.n_latents)
        return grid.index_put((self.row_ids, self.latent_ids), self.values)


class LatentOrder(NamedTuple):
    """A permutation of entries that groups them by latent."""

    entries: Int[Tensor, " E"]
    offsets: Int[Tensor, " L"]
    """Latent i owns entries[offsets[i]:offsets[i+1]]."""


def _stable_order(ids: Int[Tensor, " E"], n_ids: int) -> Int[Tensor, " E"]:
    """Positions of the ids in ascending order; on a CPU NumPy's radix sort of short integers is many times faster."""
    if ids.device.type != "cpu":
        return ids.argsort(stable=True)
    short = ids.numpy().astype(np.uint16) if n_ids <= 2**16 else ids.numpy()
    return torch.from_numpy(np.argsort(short, kind="stable"))
