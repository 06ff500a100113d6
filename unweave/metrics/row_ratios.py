"""Ratios of each row and its reconstruction, averaged over rows, so that short rows weigh as much as long ones.

    explained_variance_of_rows   1 - |x - x_hat|^2 / |x - mean|^2, what SAELens called explained variance until 2025
    cosine                       x.x_hat / (|x| |x_hat|)
    shrinkage                    |x_hat| / |x|, as in SAELens; an L1 penalty pulls activations towards 0 (Wright and
                                 Sharkey 2024, "Addressing feature suppression in SAEs")

The mean is given from outside, where SAELens has that of the batch, so that the figure does not depend on batches.
"""

from typing import final

from jaxtyping import Float
from torch import Tensor

from unweave.metrics.base import CodedRows, Definition, Metric, Sums, ratio

_SHORTEST = 1e-6
"""Rows of less than this length, or this far from the mean, are left out: their ratio says nothing."""


@final
class RowRatios(Metric[CodedRows]):
    """Sums of the ratios, and the number of rows that have each."""

    definitions = (
        Definition(
            "explained_variance_of_rows",
            "Explained variance, mean of rows",
            "1 minus squared error over squared distance from the mean, averaged over tokens; short rows weigh as much "
            "as long ones. Other libraries report this one as explained variance.",
            "not comparable with the global one",
        ),
        Definition(
            "cosine",
            "Cosine",
            "Cosine between a row and its reconstruction, averaged over tokens.",
            "over 0.9",
        ),
        Definition(
            "shrinkage",
            "Shrinkage",
            "Length of a reconstruction over the length of its row, averaged over tokens.",
            "near 1; under 1 where a penalty shrinks activations",
        ),
    )

    def __init__(self, mean_D: Float[Tensor, " D"]) -> None:
        super().__init__(rows=(), length=(), cosine=(), varied=(), unexplained=())
        self._mean_D = mean_D.double()

    def update(self, batch: CodedRows) -> None:
        x, x_hat = batch.x.double(), batch.x_hat.double()
        length, length_hat = x.norm(dim=1), x_hat.norm(dim=1)
        distance = (x - self._mean_D.to(x)).norm(dim=1)
        long, varied = (length > _SHORTEST).double(), (distance > _SHORTEST).double()
        product = (x * x_hat).sum(1)
        self.add("rows", batch.blocks, long)
        self.add("length", batch.blocks, long * length_hat / length.clamp(min=_SHORTEST))
        self.add("cosine", batch.blocks, long * product / (length * length_hat).clamp(min=_SHORTEST**2))
        self.add("varied", batch.blocks, varied)
        left = (x - x_hat).square().sum(1) / distance.clamp(min=_SHORTEST).square()
        self.add("unexplained", batch.blocks, varied * left)

    def figures(self, sums: Sums) -> dict[str, Float[Tensor, " R"]]:
        return {
            "explained_variance_of_rows": 1.0 - ratio(sums["unexplained"], sums["varied"]),
            "cosine": ratio(sums["cosine"], sums["rows"]),
            "shrinkage": ratio(sums["length"], sums["rows"]),
        }
