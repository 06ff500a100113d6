"""Global explained variance and mean squared error.

EV = 1 - sum_t |x_t - x_hat_t|^2 / sum_t |x_t - mean|^2 with the mean over all rows seen: the global R^2, not an average
of per-batch or per-token ratios, which weigh small rows more (SAELens pull request 665 tells what goes wrong then).
"""

from typing import final

import torch

from unweave.metrics.base import CodedRows, Definition, Metric


@final
class Reconstruction(Metric[CodedRows]):
    """Sums of x, |x|^2 and |x - x_hat|^2 in float64."""

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
    )

    def __init__(self, d_model: int) -> None:
        self.n_rows = 0
        self.sum_D = torch.zeros(d_model, dtype=torch.float64)
        self.square = 0.0
        self.error = 0.0

    def update(self, batch: CodedRows) -> None:
        x = batch.x.double()
        self.n_rows += x.shape[0]
        self.sum_D += x.sum(0).cpu()
        self.square += x.square().sum().item()
        self.error += (x - batch.x_hat).square().sum().item()

    def merge(self, other: "Reconstruction") -> None:
        self.n_rows += other.n_rows
        self.sum_D += other.sum_D
        self.square += other.square
        self.error += other.error

    @property
    def mean_D(self) -> torch.Tensor:
        """Mean row, float64 [D]."""
        return self.sum_D / self.n_rows

    def compute(self) -> dict[str, float]:
        variance = self.square - self.sum_D.square().sum().item() / self.n_rows
        return {"explained_variance": 1.0 - self.error / variance, "mse": self.error / self.n_rows}
