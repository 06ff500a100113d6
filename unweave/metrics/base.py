"""What a metric is: sums in float64, kept apart for blocks of documents, from which figures and their errors follow.

Tokens of one document are alike, so errors that treat tokens as independent are far too small. Every metric keeps its
sums for 64 blocks of documents. The standard error of a figure is that of leaving out one block at a time (Quenouille
1949, Tukey 1958), for any formula of the sums. Coders that were measured on the same documents have the same blocks.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.types import Codes

Batch = TypeVar("Batch")
N_BLOCKS = 64
"""Blocks that documents fall into, in turn."""
Sums = Mapping[str, Tensor]
"""Running sums by name, each [R, ...]: of the blocks, or of R ways to join them."""


class Definition(NamedTuple):
    """What one figure means, written once and shown wherever the figure is."""

    name: str
    """Its key in results.json."""
    title: str
    meaning: str
    """One or two sentences for a person who sees the figure for the first time."""
    good: str
    """The range that is usual in a good coder, in words."""
    version: int = 1


class CodedRows(NamedTuple):
    """A batch of rows as they should be written, the codes, and what the coder writes."""

    x: Float[Tensor, "B D"]
    codes: Codes
    x_hat: Float[Tensor, "B D"]
    blocks: Int[Tensor, " B"]
    """The block of documents that each row is from."""


class Metric(ABC, Generic[Batch]):
    """A streaming figure: the same three calls serve logging, evaluation and many processes."""

    definitions: ClassVar[tuple[Definition, ...]]

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        """Sums by name, each of a shape; all start at 0."""
        self.sums = {name: torch.zeros(N_BLOCKS, *shape, dtype=torch.float64) for name, shape in shapes.items()}

    @abstractmethod
    def update(self, batch: Batch) -> None:
        """Add a batch."""

    @abstractmethod
    def figures(self, sums: Sums) -> dict[str, Float[Tensor, " R"]]:
        """The figures that follow from sums [R, ...], by name; NaN where they have no meaning."""

    def merge(self, other: Any) -> None:
        """Add what another metric of the same kind has seen."""
        for name, sums in self.sums.items():
            sums += other.sums[name]

    def compute(self) -> dict[str, float]:
        """The figures so far, by name."""
        return {name: value.item() for name, value in self.figures(self.total()).items()}

    def total(self) -> dict[str, Tensor]:
        """The sums over all blocks, each [1, ...]."""
        return {name: sums.sum(0, keepdim=True) for name, sums in self.sums.items()}

    def add(self, name: str, blocks_B: Int[Tensor, " B"], values: Float[Tensor, "B ..."]) -> None:
        """Add what each row has to a sum."""
        self.sums[name].index_add_(0, blocks_B.cpu(), values.to("cpu", torch.float64))

    def add_at(
        self, name: str, blocks_E: Int[Tensor, " E"], places_E: Int[Tensor, " E"], values_E: Float[Tensor, " E"]
    ) -> None:
        """Add to single places of a sum that is a row of numbers for each block."""
        sums = self.sums[name]
        at = (blocks_E * sums.shape[1] + places_E).cpu()
        sums.view(-1).index_add_(0, at, values_E.to("cpu", torch.float64))

    def standard_errors(self) -> dict[str, float]:
        """The standard error of each figure that has one; none with documents in fewer than two blocks."""
        left_out = self.left_out()
        n = next(iter(left_out.values())).shape[0]
        if n < 2:
            return {}
        figures = self.figures(left_out)
        errors = {name: ((n - 1) * value.var(unbiased=False)).sqrt().item() for name, value in figures.items()}
        return {name: error for name, error in errors.items() if error == error}

    def left_out(self) -> dict[str, Tensor]:
        """The sums without each of the blocks that hold anything."""
        used = torch.stack([sums.reshape(N_BLOCKS, -1).abs().sum(1) for sums in self.sums.values()]).sum(0) > 0
        return {name: total - self.sums[name][used] for name, total in self.total().items()}

    def resampled(self, weights_RN: Float[Tensor, "R N"]) -> dict[str, Float[Tensor, " R"]]:
        """The figures of blocks drawn with given weights, for a bootstrap."""
        return self.figures({name: torch.tensordot(weights_RN, sums, 1) for name, sums in self.sums.items()})


def blocks_of(document_ids: Int[Tensor, " *shape"]) -> Int[Tensor, " *shape"]:
    """The block of each document."""
    return document_ids % N_BLOCKS


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """NaN where there is nothing to divide by: the share of nothing says nothing."""
    return torch.where(denominator != 0, numerator / denominator, torch.nan)
