"""Which latents of a large coder a small one lacks: what adding each of them alone does to the small one's error.

Leask, Bussmann et al. 2025, "Sparse Autoencoders Do Not Find Canonical Units" (arXiv 2502.04878). With e the error of
the small coder on a row, f_l the activation of latent l of the large one and d_l its decoder row, adding l to the small
coder changes its mean squared error by

    delta_l = mean over rows of |e - f_l d_l|^2 - |e|^2 = mean of f_l^2 |d_l|^2 - 2 f_l d_l.e

Only rows on which l fires count, so one pass over e and the large coder's codes gives all latents at once, exactly, for
a latent that keeps the activation it has in the large coder. It is novel where delta_l < 0, and otherwise one that
reconstructs what the small coder has already.

A small TopK coder has no room for one more: where f_l is larger than the weakest active latent m, that is pushed out,
and e becomes e + f_m d_m; where it is not, l does not fire. ``stitched_novel_share_with_k`` is of this second delta.

A proxy needs no rows: the largest cosine of d_l with any decoder row of the small coder, under 0.7 for novel latents.
Its area under the ROC curve says how well it tells the two kinds apart.
"""

import math
from typing import NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.analysis.cosines import nearest
from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.kernels.sampled_dot import sampled_dot
from unweave.metrics.base import Definition, Metric, Sums, ratio
from unweave.types import Codes

PROXY_UNDER = 0.7

DEFINITIONS = (
    Definition(
        "stitched_novel_share",
        "Novel latents",
        "Share of the large coder's latents that fired which lower the small coder's error when added to it alone.",
        "0.2 to 0.5 for a coder a few times as wide; 0 where the small coder lacks nothing",
    ),
    Definition(
        "stitched_novel_share_with_k",
        "Novel latents at the same k",
        "The same where an added latent pushes the small TopK coder's weakest latent out; NaN for other coders.",
        "below the share with room for one more",
    ),
    Definition(
        "stitched_novel_gain",
        "Gain of novel latents",
        "Sum of what each novel latent alone takes off the small coder's error, over that error. Gains overlap, so it "
        "may be over 1.",
        "near 0 where the small coder lacks nothing",
    ),
    Definition(
        "stitched_silent_share",
        "Silent latents",
        "Share of the large coder's latents that fired on none of the rows, which are in no other figure here.",
        "under 10 %; depends on how many rows were measured",
    ),
)

PROXY_DEFINITIONS = (
    Definition(
        "stitched_proxy_auc",
        "Cosine tells novel latents",
        "Chance that a novel latent has a smaller cosine to its nearest latent of the small coder than another has.",
        "over 0.8; 0.5 is chance",
    ),
    Definition(
        "stitched_proxy_share",
        "Novel latents by cosine",
        "Share of the large coder's latents without a cosine of 0.7 to any decoder row of the small coder.",
        "near the share of novel latents",
    ),
)


class Displacement(NamedTuple):
    """What a small TopK coder would do with one more latent on each row."""

    error_BD: Float[Tensor, "B D"]
    """Its error without its weakest active latent."""
    weakest_B: Float[Tensor, " B"]
    """The activation which another must pass; 0 where there is room."""


class StitchedRows(NamedTuple):
    """A batch of errors of the small coder, and what the large one found in the same rows."""

    error_BD: Float[Tensor, "B D"]
    """What should be written less what the small coder writes."""
    codes: Codes
    """Of the large coder, in units in which its decoder rows are written."""
    blocks: Int[Tensor, " B"]
    displacement: Displacement | None = None


@final
class Stitching(Metric[StitchedRows]):
    """Sums of f d.e and f^2 for each latent of the large coder."""

    definitions = DEFINITIONS

    def __init__(self, W_dec_LD: Float[Tensor, "L D"]) -> None:
        """The decoder of the large coder. Sums take 64 blocks x 3 numbers for each of its latents."""
        self.W_dec_LD = W_dec_LD.detach()
        self._squares_L = self.W_dec_LD.norm(dim=1).double().square()
        n_latents = (len(W_dec_LD),)
        super().__init__(rows=(), error=(), k_rows=(), fires=n_latents, delta=n_latents, delta_with_k=n_latents)

    def update(self, batch: StitchedRows) -> None:
        self._check(batch)
        codes, error = batch.codes, batch.error_BD.to(self.W_dec_LD)
        ids, blocks = codes.latent_ids, batch.blocks.to(codes.latent_ids.device)[codes.row_ids]
        self.add("rows", batch.blocks, torch.ones(len(error)))
        self.add("error", batch.blocks, error.double().square().sum(1))
        self.add_at("fires", blocks, ids, (codes.values != 0).double())
        self.add_at("delta", blocks, ids, self._deltas(codes, error))
        if batch.displacement is not None:
            self.add("k_rows", batch.blocks, torch.ones(len(error)))
            self.add_at("delta_with_k", blocks, ids, self._displacing(codes, error, batch.displacement))

    def figures(self, sums: Sums) -> dict[str, Float[Tensor, " R"]]:
        fired = sums["fires"] > 0
        n_fired = fired.double().sum(1)
        with_k = (sums["delta_with_k"] < 0).double().sum(1)
        return {
            "stitched_novel_share": ratio((sums["delta"] < 0).double().sum(1), n_fired),
            "stitched_novel_share_with_k": torch.where(sums["k_rows"] > 0, ratio(with_k, n_fired), torch.nan),
            "stitched_novel_gain": ratio(sums["delta"].clamp(max=0).sum(1).neg(), sums["error"]),
            "stitched_silent_share": (~fired).double().mean(1),
        }

    @property
    def delta_L(self) -> Float[Tensor, " L"]:
        """By how much the mean squared error of the small coder changes with each latent; NaN for silent ones."""
        return self._per_row("delta")

    @property
    def delta_with_k_L(self) -> Float[Tensor, " L"]:
        """The same where the weakest latent is pushed out."""
        return self._per_row("delta_with_k")

    def _per_row(self, name: str) -> Float[Tensor, " L"]:
        total = self.total()
        return torch.where(total["fires"][0] > 0, total[name][0] / total["rows"], torch.nan)

    def _deltas(self, codes: Codes, error_BD: Float[Tensor, "B D"]) -> Float[Tensor, " E"]:
        """|e - f d|^2 - |e|^2 of each entry."""
        values = codes.values.detach().double()
        along = sampled_dot(codes, error_BD, self.W_dec_LD).double()
        return values.square() * self._squares_L[codes.latent_ids] - 2 * values * along

    def _displacing(self, codes: Codes, error_BD: Tensor, displacement: Displacement) -> Float[Tensor, " E"]:
        without = displacement.error_BD.to(error_BD)
        lost = (without.double().square() - error_BD.double().square()).sum(1)[codes.row_ids]
        enters = codes.values > displacement.weakest_B.to(codes.values)[codes.row_ids]
        return torch.where(enters, self._deltas(codes, without) + lost, 0.0)

    def _check(self, batch: StitchedRows) -> None:
        came = list(batch.error_BD.shape), batch.codes.n_rows, batch.codes.n_latents
        n_latents, width = self.W_dec_LD.shape
        if came != ([batch.codes.n_rows, width], len(batch.error_BD), n_latents):
            raise UserError(
                f"errors {came[0]} and codes [{came[1]}, {came[2]}] do not fit a large coder of {n_latents} latents "
                f"that writes width {width}; give both coders the same rows of one site"
            )


@torch.no_grad()
def stitched_rows(
    small: SparseCoder,
    large: SparseCoder,
    x_BD: Float[Tensor, "B D_read"],
    y_BD: Float[Tensor, "B D_write"],
    blocks_B: Int[Tensor, " B"],
) -> StitchedRows:
    """The batch that two coders of one site make of the rows which they read and those which they should write."""
    if small.wiring.writes != large.wiring.writes or small.wiring.reads != large.wiring.reads:
        raise UserError(
            f"stitching needs coders that read and write the same sites, got {small.wiring.reads} to "
            f"{small.wiring.writes} and {large.wiring.reads} to {large.wiring.writes}"
        )
    own = small.encode(x_BD)
    error = y_BD - small.reconstruct(own, x_BD)
    codes = large.encode(x_BD)
    codes = codes.with_values(codes.values * written_scale(large, x_BD)[codes.row_ids])
    return StitchedRows(error, codes, blocks_B, _displacement(small, own, error, written_scale(small, x_BD)))


def proxy_figures(
    W_dec_LD: Float[Tensor, "L D"], small_MD: Float[Tensor, "M _"], delta_L: Float[Tensor, " L"]
) -> dict[str, float]:
    """How well the nearest cosine to the small coder tells novel latents, among those with a delta (not NaN)."""
    cosines = nearest(W_dec_LD, small_MD).cosines[:, 0].cpu()
    fired = ~delta_L.isnan().cpu()
    novel = delta_L.cpu() < 0
    share = (cosines[fired] < PROXY_UNDER).double().mean().item()
    return {
        "stitched_proxy_auc": _chance_of_less(cosines[fired & novel], cosines[fired & ~novel]),
        "stitched_proxy_share": share,
    }


def _chance_of_less(some: Tensor, others: Tensor) -> float:
    """That one drawn from some is less than one drawn from the others; equals count half (Mann and Whitney 1947)."""
    if not len(some) or not len(others):
        return math.nan
    ordered = others.sort().values
    above = len(others) - torch.searchsorted(ordered, some, right=True)
    equal = torch.searchsorted(ordered, some, right=True) - torch.searchsorted(ordered, some)
    return ((above + 0.5 * equal).double().sum() / (len(some) * len(others))).item()


def written_scale(coder: SparseCoder, x_BD: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
    """By how much a coder that norms its rows stretches what it decodes, for each row."""
    if coder.wiring.row_norm == "none":
        return x_BD.new_ones(len(x_BD))
    one, zero = torch.ones_like(x_BD), torch.zeros_like(x_BD)
    return (coder.wiring.denormalised(one, x_BD) - coder.wiring.denormalised(zero, x_BD))[:, 0]


def _displacement(small: SparseCoder, codes: Codes, error_BD: Tensor, scale_B: Tensor) -> Displacement | None:
    """Only TopK coders have a fixed number of places for a row's latents."""
    from unweave.coders.topk import TopK

    if not isinstance(small, TopK):
        return None
    nothing = codes.values.new_full((codes.n_rows,), torch.inf)
    weakest = nothing.scatter_reduce(0, codes.row_ids, codes.values, "amin")
    is_full = codes.row_offsets.diff() >= small.config.k
    lost = codes.where(is_full[codes.row_ids] & (codes.values == weakest[codes.row_ids]))
    # of equally weak latents one alone leaves
    once = torch.ones_like(lost.row_ids, dtype=torch.bool)
    once[1:] = lost.row_ids[1:] != lost.row_ids[:-1]
    without = (small.decode(lost.where(once)) - small.b_dec) * scale_B[:, None]
    return Displacement(error_BD + without, torch.where(is_full, weakest * scale_B, 0.0))
