"""How much shorter reconstructions are than the rows: the mean of |x_hat| / |x| over rows, as in SAELens.

An L1 penalty pulls activations towards 0 and with them the reconstruction (Wright and Sharkey 2024, "Addressing feature
suppression in SAEs").
"""

from typing import final

from unweave.metrics.base import CodedRows, Definition, Metric

_SHORTEST = 1e-6
"""Rows of less than this length are left out: their ratio says nothing."""


@final
class Shrinkage(Metric[CodedRows]):
    """Sum of the ratios and the number of rows that have one."""

    definitions = (
        Definition(
            "shrinkage",
            "Shrinkage",
            "Length of a reconstruction over the length of its row, averaged over rows.",
            "near 1; under 1 where a penalty shrinks activations",
        ),
    )

    def __init__(self) -> None:
        self.n_rows = 0
        self.ratios = 0.0

    def update(self, batch: CodedRows) -> None:
        lengths = batch.x.double().norm(dim=1)
        valid = lengths > _SHORTEST
        self.n_rows += int(valid.sum())
        self.ratios += (batch.x_hat.double().norm(dim=1)[valid] / lengths[valid]).sum().item()

    def merge(self, other: "Shrinkage") -> None:
        self.n_rows += other.n_rows
        self.ratios += other.ratios

    def compute(self) -> dict[str, float]:
        return {"shrinkage": self.ratios / self.n_rows if self.n_rows else float("nan")}
