"""How much of the reconstruction error lies at the first position of the sequences.

Models park attention on the first token, whose activations are then far larger than all others (Xiao et al. 2023,
arXiv 2309.17453); where such rows are not left out, they dominate the squared error and a coder learns little else.
"""

from typing import NamedTuple, final

from jaxtyping import Float, Int
from torch import Tensor

from unweave.metrics.base import Definition, Metric, Sums, ratio


class PlacedErrors(NamedTuple):
    """The error of each row, the row's place in its sequence, and its block of documents."""

    error_BD: Float[Tensor, "B D"]
    positions: Int[Tensor, " B"]
    blocks: Int[Tensor, " B"]


@final
class FirstPosition(Metric[PlacedErrors]):
    """Sums of squared error at the first position and everywhere."""

    definitions = (
        Definition(
            "first_position_share",
            "Error at the first position",
            "Share of the squared error that lies at the first token of the sequences, whose activations can be huge.",
            "under 5 %; 0 where special tokens are left out",
        ),
    )

    def __init__(self) -> None:
        super().__init__(first=(), all=())

    def update(self, batch: PlacedErrors) -> None:
        squared = batch.error_BD.double().square().sum(1)
        self.add("all", batch.blocks, squared)
        self.add("first", batch.blocks, squared * (batch.positions == 0).to(squared))

    def figures(self, sums: Sums) -> dict[str, Float[Tensor, " R"]]:
        return {"first_position_share": ratio(sums["first"], sums["all"]).nan_to_num(0.0)}
