"""How far reconstructions are from the rows, over all rows at once: global explained variance and its relatives.

With e = x - x_hat and sums over all rows seen:

    explained_variance   1 - sum |e|^2 / sum |x - mean|^2, the global R^2; 1 minus it is what is left unexplained (FVU)
    mse                  sum |e|^2 / rows
    normalised_error     sum |e|^2 / sum |x|^2, which counts the mean as something to explain
    scale                sum |x_hat|^2 / sum x.x_hat, under 1 where reconstructions are too short for their direction
                         (the relative reconstruction bias of Rajamanoharan et al. 2024, arXiv 2404.16014)

A mean of such ratios over batches, or a batch's own mean in the place of the global one, is another figure, which
depends on the batch size; SAELens' pull request 665 tells what goes wrong where they are mixed up.
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.metrics.base import CodedRows, Definition, Metric, Sums, ratio


@final
class Reconstruction(Metric[CodedRows]):
    """Sums of x, |x|^2, |x_hat|^2, x.x_hat and |x - x_hat|^2."""

    definitions = (
        Definition(
            "explained_variance",
            "Explained variance",
            "Share of the activations' variance that the reconstruction keeps, over all tokens at once (global R²).",
            "over 0.80; 1 is perfect, 0 is as good as the mean",
        ),
        Definition(
            "mse",
            "Mean squared error",
            "Squared distance between a row and its reconstruction, summed over the width and averaged over tokens.",
            "small beside the variance of the rows; compare at the same site only",
        ),
        Definition(
            "normalised_error",
            "Normalised error",
            "Squared error over the squared length of the rows, mean included. Rows with a large mean make it look "
            "far better than what explained variance leaves.",
            "compare at the same site only",
        ),
        Definition(
            "scale",
            "Scale of reconstructions",
            "Squared length of the reconstructions over their product with the rows. Under 1, longer reconstructions "
            "in the same directions would be better.",
            "near 1; under 1 where a penalty shrinks activations",
        ),
    )

    def __init__(self, d_model: int) -> None:
        super().__init__(rows=(), x=(d_model,), square=(), square_hat=(), product=(), error=())

    def update(self, batch: CodedRows) -> None:
        x, x_hat = batch.x.double(), batch.x_hat.double()
        self.add("rows", batch.blocks, torch.ones(x.shape[0]))
        self.add("x", batch.blocks, x)
        self.add("square", batch.blocks, x.square().sum(1))
        self.add("square_hat", batch.blocks, x_hat.square().sum(1))
        self.add("product", batch.blocks, (x * x_hat).sum(1))
        self.add("error", batch.blocks, (x - x_hat).square().sum(1))

    def figures(self, sums: Sums) -> dict[str, Float[Tensor, " R"]]:
        rows, square, error = sums["rows"], sums["square"], sums["error"]
        variance = square - sums["x"].square().sum(1) / rows
        return {
            "explained_variance": 1.0 - ratio(error, variance),
            "mse": error / rows,
            "normalised_error": ratio(error, square),
            "scale": ratio(sums["square_hat"], sums["product"]),
        }

    @property
    def n_rows(self) -> int:
        return int(self.sums["rows"].sum())
