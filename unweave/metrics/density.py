"""How often each latent fires, and the shares of latents that never or nearly always do."""

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.metrics.base import CodedRows, Definition, Metric

DENSE_FROM = 0.1
"""A latent that fires on more than this share of tokens counts as dense."""


@final
class Density(Metric[CodedRows]):
    """Number of rows on which each latent fires."""

    definitions = (
        Definition(
            "dead_share",
            "Dead latents",
            "Share of latents that fired on none of the measured tokens. It depends on how many tokens were measured.",
            "under 10 %",
        ),
        Definition(
            "dense_share",
            "Dense latents",
            "Share of latents that fire on more than 10 % of tokens; they rarely stand for one thing.",
            "under 2 %",
        ),
    )

    def __init__(self, n_latents: int) -> None:
        self.n_rows = 0
        self.fires_L: Int[Tensor, " L"] = torch.zeros(n_latents, dtype=torch.int64)

    def update(self, batch: CodedRows) -> None:
        self.n_rows += batch.codes.n_rows
        self.fires_L += torch.bincount(batch.codes.latent_ids, minlength=self.fires_L.shape[0]).cpu()

    def merge(self, other: "Density") -> None:
        self.n_rows += other.n_rows
        self.fires_L += other.fires_L

    @property
    def density_L(self) -> Float[Tensor, " L"]:
        """Share of rows on which each latent fires."""
        return self.fires_L.double() / self.n_rows

    def compute(self) -> dict[str, float]:
        return {
            "dead_share": (self.fires_L == 0).double().mean().item(),
            "dense_share": (self.density_L > DENSE_FROM).double().mean().item(),
        }
