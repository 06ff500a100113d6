"""What a metric is: running sums in float64 that can be updated, merged with another's, and turned into figures."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from jaxtyping import Float
from torch import Tensor

from unweave.types import Codes

Batch = TypeVar("Batch")


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


class Metric(ABC, Generic[Batch]):
    """A streaming figure: the same three calls serve logging, evaluation and many processes."""

    definitions: ClassVar[tuple[Definition, ...]]

    @abstractmethod
    def update(self, batch: Batch) -> None:
        """Add a batch."""

    @abstractmethod
    def merge(self, other: Any) -> None:
        """Add what another metric of the same kind has seen."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """The figures so far, by name."""
