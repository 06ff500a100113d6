"""What processes that train one coder together tell each other: shards of its latents, and shares of each batch's rows.

A coder's step is written once, for whoever holds some of the latents and sees some of the rows. Where a sum runs over
latents, or a choice is made among all of them, it asks its peers. A coder that has everything to itself asks
``ALONE``, which answers with what it was given.
"""

from abc import ABC, abstractmethod
from typing import final

from jaxtyping import Bool, Float
from torch import Tensor, nn

from unweave.kernels.selection import Rule
from unweave.types import Codes


class Peers(ABC):
    """The other processes that train the same coder; ``latents`` and ``rows`` are in so many parts each."""

    n_latent_parts = 1
    n_row_parts = 1

    @abstractmethod
    def over_latents(self, x: Tensor) -> Tensor:
        """The sum over the parts of the latents; its gradient goes to every part as it is."""

    @abstractmethod
    def shared(self, parameter: Tensor) -> Tensor:
        """A parameter that every part of the latents has whole; its gradient is the sum of what the parts find."""

    @abstractmethod
    def mean_of_rows(self, x: Tensor) -> Tensor:
        """The mean over the parts of the rows, which are of equal size; no gradient."""

    @abstractmethod
    def least(self, x: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """The least of all processes; no gradient."""

    @abstractmethod
    def any_of_rows(self, marks: Bool[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """What any part of the rows has marked."""

    @abstractmethod
    def total_latents(self, count: int) -> int:
        """The sum of a count over the parts of the latents; makes a GPU wait."""

    @abstractmethod
    def own_rule(self, rule: Rule, n_latents: int) -> Rule:
        """A rule that keeps, of one process' latents and rows, at least what ``rule`` keeps of all."""

    @abstractmethod
    def choose(self, codes: Codes, rule: Rule) -> Codes:
        """Of the codes that every process found by ``own_rule``, those that ``rule`` keeps of all; no gradient."""

    @abstractmethod
    def average_gradients(self, coder: nn.Module) -> None:
        """Replace each gradient by its mean over the parts of the rows."""


@final
class Alone(Peers):
    """A coder that has all latents and all rows to itself."""

    def over_latents(self, x: Tensor) -> Tensor:
        return x

    def shared(self, parameter: Tensor) -> Tensor:
        return parameter

    def mean_of_rows(self, x: Tensor) -> Tensor:
        return x

    def least(self, x: Float[Tensor, ""]) -> Float[Tensor, ""]:
        return x

    def any_of_rows(self, marks: Bool[Tensor, " n"]) -> Bool[Tensor, " n"]:
        return marks

    def total_latents(self, count: int) -> int:
        return count

    def own_rule(self, rule: Rule, n_latents: int) -> Rule:
        return rule

    def choose(self, codes: Codes, rule: Rule) -> Codes:
        return codes

    def average_gradients(self, coder: nn.Module) -> None:
        pass


ALONE = Alone()
