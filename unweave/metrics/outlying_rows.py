"""Rows that are unlike the rest, apart: those of special tokens, and those of massive activations.

A few rows are tens of times longer than all others, at the first token above all (Sun et al. 2024, arXiv 2402.17762).
They hold nearly all of the squared length, so one figure for everything is a figure of theirs. Special tokens are in no
other figure; massive rows are, unless the recipe leaves them out.
"""

from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unweave.metrics.base import Definition, Metric, Sums, ratio

USUAL, MASSIVE, SPECIAL = range(3)
MASSIVE_FROM = 10.0
"""Times the median length of a batch's content rows."""
_KINDS = {"massive": f"rows over {MASSIVE_FROM:g} times as long as the median", "special": "rows of special tokens"}


class KindsOfRows(NamedTuple):
    """Rows, what was written for them, and of which kind each is."""

    x: Float[Tensor, "B D"]
    x_hat: Float[Tensor, "B D"]
    kinds: Int[Tensor, " B"]
    blocks: Int[Tensor, " B"]


@final
class OutlyingRows(Metric[KindsOfRows]):
    """Sums of rows, |x|^2 and |x - x_hat|^2 for each kind of row."""

    definitions = tuple(
        definition
        for kind, what in _KINDS.items()
        for definition in (
            Definition(f"{kind}_rows", f"Share of {kind} rows", f"Share of all rows that are {what}.", "under 1 %"),
            Definition(
                f"{kind}_energy",
                f"Squared length in {kind} rows",
                f"Share of the squared length of all rows that is in {what}.",
                "the larger, the less a figure over all rows would say",
            ),
            Definition(
                f"{kind}_error",
                f"Error on {kind} rows",
                f"Squared error over squared length, on {what} alone.",
                "no matter, where they were left out of training",
            ),
        )
    )

    def __init__(self) -> None:
        super().__init__(rows=(3,), square=(3,), error=(3,))

    def update(self, batch: KindsOfRows) -> None:
        x = batch.x.double()
        kinds = batch.kinds.cpu()
        self.add_at("rows", batch.blocks, kinds, torch.ones(len(kinds)))
        self.add_at("square", batch.blocks, kinds, x.square().sum(1))
        self.add_at("error", batch.blocks, kinds, (x - batch.x_hat).square().sum(1))

    def figures(self, sums: Sums) -> dict[str, Float[Tensor, " R"]]:
        rows, square, error = sums["rows"], sums["square"], sums["error"]
        figures = {}
        for kind, place in zip(_KINDS, (MASSIVE, SPECIAL), strict=True):
            figures[f"{kind}_rows"] = ratio(rows[:, place], rows.sum(1))
            figures[f"{kind}_energy"] = ratio(square[:, place], square.sum(1))
            figures[f"{kind}_error"] = ratio(error[:, place], square[:, place])
        return figures


def is_massive(x_BD: Float[Tensor, "B D"]) -> Bool[Tensor, " B"]:
    """Which of a batch's content rows are massive."""
    lengths = x_BD.float().norm(dim=1)
    return lengths > MASSIVE_FROM * lengths.median() if len(lengths) else lengths > 0
