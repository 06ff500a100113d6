"""L0: how many latents are active per row, and how that is spread over rows."""

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.metrics.base import CodedRows, Definition, Metric, Sums

_LARGEST = 4096
"""Counts from here on are one bin: a coder with so many active latents is not sparse."""


@final
class L0(Metric[CodedRows]):
    """Number of rows with each count of active latents."""

    definitions = (
        Definition(
            "l0",
            "L0",
            "Mean number of latents active on a token. Fewer are easier to read, more reconstruct better.",
            "20 to 100; compare coders at equal L0",
        ),
        Definition(
            "l0_spread",
            "Spread of L0",
            "Standard deviation over tokens of the number of active latents.",
            "0 for TopK; about the mean itself for coders that choose",
        ),
        *(
            Definition(
                f"l0_p{share}",
                f"L0, {share} % of tokens",
                f"Number of active latents that {share} % of tokens do not exceed.",
                "compare with L0",
            )
            for share in (10, 50, 90, 99)
        ),
    )

    def __init__(self) -> None:
        super().__init__(total=(), square=(), rows_by_count=(_LARGEST + 1,))

    def update(self, batch: CodedRows) -> None:
        counts_B = batch.codes.row_offsets.diff().cpu()
        self.add("total", batch.blocks, counts_B.double())
        self.add("square", batch.blocks, counts_B.double().square())
        self.add_at("rows_by_count", batch.blocks, counts_B.clamp(max=_LARGEST), torch.ones(len(counts_B)))

    def figures(self, sums: Sums) -> dict[str, Float[Tensor, " R"]]:
        by_count_RC = sums["rows_by_count"]
        rows = by_count_RC.sum(1)
        mean = sums["total"] / rows
        upto_RC = by_count_RC.cumsum(1) / rows[:, None]
        quantiles = {f"l0_p{share}": (upto_RC < share / 100 - 1e-12).sum(1).double() for share in (10, 50, 90, 99)}
        return {"l0": mean, "l0_spread": (sums["square"] / rows - mean.square()).clamp(min=0).sqrt(), **quantiles}

    @property
    def rows_by_count(self) -> Int[Tensor, " C"]:
        """Number of rows with 0, 1, 2, ... active latents, up to the largest count seen."""
        counts = self.sums["rows_by_count"].sum(0).long()
        seen = counts.nonzero()
        return counts[: int(seen.max()) + 1 if len(seen) else 0]
