"""What a coder in training is to be good at: its own reconstruction, or what the model makes of it.

``Local`` is the usual training, of each row by itself. ``end_to_end.py`` has the objective that lets the model go on
from what the coder writes.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from unweave.coders import CoderStep
from unweave.errors import UserError

if TYPE_CHECKING:
    from unweave.training.trainee import Trainee

Batch = dict[str, Shaped[Tensor, "_ ..."]]
"""What a step is taken on: tensors by name, all with the same first axis, along which a batch can be cut in parts."""
RowsBySite = dict[str, Float[Tensor, "B _"]]
"""Site name to rows, all with the same B."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What coders are trained for. Penalties of an architecture, and what revives dead latents, are always added.

    With ``kl`` or ``downstream``, a step runs the model with what the coder writes in place of its own activations, on
    whole sequences of text: ``training.batch // packing.context`` of them, so ``training.rows`` counts all tokens.
    """

    reconstruction: float = 1.0
    """Weight of the coder's own errors at the site; 0: only what the model makes of it counts."""
    kl: float = 0.0
    """Weight of KL(clean || spliced) of the next-token distributions, in nats, mean over content tokens (Braun et al.
    2024, arXiv 2405.12241)."""
    downstream: float = 0.0
    """Weight of the share of variance that is lost in the residual stream after each later block, mean over blocks. It
    replaces the plain squared error of the paper, which late blocks dominate because their streams are longer."""
    balance: bool = False
    """Scale the KL in each step to the size of the reconstruction's errors and take the mean of both by their weights,
    so that penalties keep theirs (Karvonen 2025, arXiv 2503.17272)."""

    def __post_init__(self) -> None:
        weights = {name: getattr(self, name) for name in ("reconstruction", "kl", "downstream")}
        for name, weight in weights.items():
            if not 0 <= weight < math.inf:
                raise UserError(f"objective.{name} is a weight of at least 0, got {weight}")
        if not any(weights.values()):
            raise UserError("objective has no weight above 0: set reconstruction, kl or downstream")
        if not self.needs_model and self.reconstruction != 1:
            raise UserError(
                f"objective.reconstruction={self.reconstruction} weighs it against kl and downstream; "
                "without these leave it at 1"
            )
        if self.balance and not (self.kl > 0 and self.reconstruction > 0):
            raise UserError("objective.balance=true needs objective.kl and objective.reconstruction above 0")

    @property
    def needs_model(self) -> bool:
        """Whether the model runs in each step."""
        return self.kl > 0 or self.downstream > 0


class Losses(NamedTuple):
    """What a step makes smaller."""

    total: Float[Tensor, ""]
    terms: dict[str, Float[Tensor, ""]]
    """What it is made of, by name, as it is logged."""


class Objective(ABC):
    """Says which rows a batch holds, and what is minimised on it. Subclasses are final."""

    @abstractmethod
    def rows(self, batch: Batch) -> RowsBySite:
        """Rows at the sites that the coder reads and writes, in the model's units."""

    @abstractmethod
    def n_rows(self, batch: Batch) -> int:
        """How many rows that are; does not wait for a GPU."""

    @abstractmethod
    def losses(self, trainee: "Trainee", batch: Batch, step: CoderStep) -> Losses:
        """The losses of a step whose rows the coder has read; differentiable."""


@final
class Local(Objective):
    """A batch is rows by site; what the coder's ``loss`` names is minimised as it is."""

    def rows(self, batch: Batch) -> RowsBySite:
        return batch

    def n_rows(self, batch: Batch) -> int:
        return next(iter(batch.values())).shape[0]

    def losses(self, trainee: "Trainee", batch: Batch, step: CoderStep) -> Losses:
        return Losses(torch.stack(list(step.losses.values())).sum(), step.losses)


LOCAL = Local()
