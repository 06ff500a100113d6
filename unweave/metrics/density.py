"""How often each latent fires: dead and dense latents, and the distribution of densities."""

from typing import NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.metrics.base import CodedRows, Definition, Metric, Sums

DENSE_FROM = 0.1
"""A latent that fires on more than this share of tokens counts as dense."""
_OFTEN_FROM = 0.01
_RAREST = 1e-7
_BINS_PER_DECADE = 4


class Histogram(NamedTuple):
    """Numbers of things between edges."""

    edges: list[float]
    counts: list[int]


@final
class Density(Metric[CodedRows]):
    """Number of rows on which each latent fires, and the sum of what it has there."""

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
        Definition(
            "often_share",
            "Latents on over 1 % of tokens",
            "Share of latents that fire on more than 1 % of tokens.",
            "under 10 % in wide coders; L0 over the number of latents is the mean density",
        ),
        Definition(
            "dense_activation_share",
            "Activation in dense latents",
            "Share of the sum of all activations that is in latents which fire on more than 10 % of tokens.",
            "under 20 %",
        ),
    )

    def __init__(self, n_latents: int) -> None:
        super().__init__(rows=(), fires=(n_latents,), activation=(n_latents,))

    def update(self, batch: CodedRows) -> None:
        codes = batch.codes
        blocks_E = batch.blocks.to(codes.row_ids.device)[codes.row_ids]
        self.add("rows", batch.blocks, torch.ones(codes.n_rows))
        self.add_at("fires", blocks_E, codes.latent_ids, torch.ones_like(codes.values))
        self.add_at("activation", blocks_E, codes.latent_ids, codes.values.detach().abs())

    def figures(self, sums: Sums) -> dict[str, Float[Tensor, " R"]]:
        density_RL = sums["fires"] / sums["rows"][:, None]
        is_dense_RL = density_RL > DENSE_FROM
        activation = sums["activation"].sum(1)
        return {
            "dead_share": (sums["fires"] == 0).double().mean(1),
            "dense_share": is_dense_RL.double().mean(1),
            "often_share": (density_RL > _OFTEN_FROM).double().mean(1),
            "dense_activation_share": (sums["activation"] * is_dense_RL).sum(1) / activation.clamp(min=1e-300),
        }

    @property
    def fires_L(self) -> Int[Tensor, " L"]:
        return self.sums["fires"].sum(0).long()

    @property
    def density_L(self) -> Float[Tensor, " L"]:
        """Share of rows on which each latent fires."""
        return self.sums["fires"].sum(0) / self.sums["rows"].sum()

    def histogram(self) -> Histogram:
        """Latents by the decimal logarithm of their density, a quarter of a decade each; dead ones are in the first."""
        lowest, highest = torch.tensor(_RAREST).log10(), 0.0
        edges = torch.linspace(lowest, highest, round(_BINS_PER_DECADE * (highest - lowest.item())) + 1)
        logs_L = self.density_L.clamp(min=_RAREST).log10()
        places_L = ((logs_L - lowest) * _BINS_PER_DECADE).long().clamp(0, len(edges) - 2)
        return Histogram(edges.tolist(), torch.bincount(places_L, minlength=len(edges) - 1).tolist())
