"""The vocabulary: axis letters, and the small records that several rooms share.

Axis letters, everywhere: B rows, T positions, D model width, L latents, K active per row, V vocabulary; N sequences of
a token batch, E active entries of a batch of codes, F features of data whose truth is known.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Document(NamedTuple):
    """One text and the name of where it came from."""

    name: str
    text: str
    messages: Sequence[Mapping[str, str]] | None = None
    """Turns of a conversation, each with a role and a content, which the tokenizer's template makes tokens of."""
    token_ids: np.ndarray | None = None
    """The tokens, where they are known; then there is no text."""


class TextPosition(NamedTuple):
    """Where reading goes on: the first token that is in no sequence yet."""

    document: int = 0
    """Documents before it, counted from the start of the reading, also over its repetitions."""
    token: int = 0
    """Tokens of that document before it, a separator in front included."""


class Part(NamedTuple):
    """One of several equal shares of a text or a cache, every ``of``-th piece from piece ``number`` on."""

    number: int = 0
    of: int = 1


class TokenBatch(NamedTuple):
    """Sequences of equal length, packed from documents."""

    token_ids: Int[Tensor, "N T"]
    document_ids: Int[Tensor, "N T"]
    """Which document each token came from, counted in reading order."""
    is_content: Bool[Tensor, "N T"]
    """False where there is no row to train or to measure on: at padding, and at special tokens if they are excluded."""
    after: TextPosition = TextPosition()
    """Where reading goes on behind the last sequence."""
    is_padding: Bool[Tensor, "N T"] | None = None
    """True behind the end of a sequence's text, where nothing is to be predicted; None: no sequence has padding."""


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
    after: TextPosition | None = None
    """Where reading goes on behind these rows."""

    def __len__(self) -> int:
        return self.token_ids.shape[0]

    @property
    def columns(self) -> Mapping[str, Float[Tensor, "B _"]]:
        """What a shuffle buffer keeps of them."""
        return self.activations


@dataclass(frozen=True)
class Codes:
    """The sparse activations of a batch, as compressed sparse rows; entries of a row are sorted by latent id.

    Where a device must not wait for a count, an entry may be an explicit 0, which is as good as no entry.
    """

    values: Float[Tensor, " E"]
    latent_ids: Int[Tensor, " E"]
    row_offsets: Int[Tensor, " B_plus_1"]
    """Row b owns entries row_offsets[b] to row_offsets[b+1]."""
    n_latents: int
    _derived: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What follows from the pattern of entries, computed once and shared by all codes on it."""

    @property
    def n_rows(self) -> int:
        return self.row_offsets.shape[0] - 1

    @property
    def density(self) -> float:
        """Share of the B x L grid that is active."""
        return self.values.shape[0] / max(1, self.n_rows * self.n_latents)

    @property
    def row_ids(self) -> Int[Tensor, " E"]:
        """The row of each entry."""
        return self._once("row_ids", self._find_row_ids)

    @property
    def by_latent(self) -> "LatentOrder":
        """The same entries in the order of their latents, sorted once and shared by both weight gradients."""
        return self._once("by_latent", self._sort_by_latent)

    def with_values(self, values: Float[Tensor, " E"]) -> "Codes":
        """The same active entries with other values."""
        return Codes(values, self.latent_ids, self.row_offsets, self.n_latents, self._derived)

    def where(self, keep: Bool[Tensor, " E"]) -> "Codes":
        """Only some of the entries; differentiable in ``values``. A GPU waits here for the number of them."""
        kept = keep.nonzero().flatten()
        row_ids = self.row_ids[kept]
        offsets = F.pad(_counts(row_ids, self.n_rows).cumsum(0), (1, 0))
        return Codes(self.values[kept], self.latent_ids[kept], offsets, self.n_latents, {"row_ids": row_ids})

    def rows(self, index: Int[Tensor, " N"]) -> "Codes":
        """Only some of the rows, in the order of ``index``; differentiable in ``values``."""
        counts, starts = self.row_offsets.diff()[index], self.row_offsets[index]
        offsets = F.pad(counts.cumsum(0), (1, 0))
        entries = torch.arange(int(offsets[-1]), device=offsets.device)
        entries = entries + (starts - offsets[:-1]).repeat_interleave(counts, output_size=len(entries))
        return Codes(self.values[entries], self.latent_ids[entries], offsets, self.n_latents)

    def dense(self) -> Float[Tensor, "B L"]:
        """The full matrix, differentiable in ``values``; for small batches, tests and the kernels' dense route."""
        grid = self.values.new_zeros(self.n_rows, self.n_latents)
        return grid.index_put((self.row_ids, self.latent_ids), self.values)

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._derived:
            self._derived[name] = make()
        return self._derived[name]

    def _find_row_ids(self) -> Int[Tensor, " E"]:
        rows = torch.arange(self.n_rows, device=self.row_offsets.device)
        return rows.repeat_interleave(self.row_offsets.diff(), output_size=self.values.shape[0])

    def _sort_by_latent(self) -> "LatentOrder":
        counts = _counts(self.latent_ids, self.n_latents)
        entries = _stable_order(self.latent_ids, self.n_latents)
        return LatentOrder(entries, self.row_ids[entries], counts.cumsum(0) - counts)


class SyntheticRows(NamedTuple):
    """Rows that were made from known features, and how strongly each feature is in each row."""

    x_BD: Float[Tensor, "B D"]
    magnitudes_BF: Codes
    """The features in the place of latents: ``latent_ids`` are feature ids, ``n_latents`` is the number of features."""


class LatentOrder(NamedTuple):
    """A permutation of entries that groups them by latent."""

    entries: Int[Tensor, " E"]
    rows: Int[Tensor, " E"]
    """The row of each of these entries."""
    offsets: Int[Tensor, " L"]
    """Latent i owns entries[offsets[i]:offsets[i+1]]."""


_SORTED_BY_NUMPY = {"cpu"}
"""Kinds of device whose ids NumPy sorts; tests of the path for GPUs empty it."""


def _counts(ids: Int[Tensor, " E"], n_ids: int) -> Int[Tensor, " n_ids"]:
    """How often each id occurs; ``bincount`` would wait for a GPU to tell the largest."""
    return ids.new_zeros(n_ids).scatter_add_(0, ids, torch.ones_like(ids))


def _stable_order(ids: Int[Tensor, " E"], n_ids: int) -> Int[Tensor, " E"]:
    """Positions of the ids in ascending order, by a radix sort, which takes a pass for every byte of an id.

    So ids are made short. On a CPU NumPy's sort is many times faster than torch's.
    """
    if ids.device.type not in _SORTED_BY_NUMPY:
        return ((ids - 2**15).short() if n_ids <= 2**16 else ids.int()).argsort(stable=True)
    short = ids.numpy().astype(np.uint16) if n_ids <= 2**16 else ids.numpy()
    return torch.from_numpy(np.argsort(short, kind="stable"))
