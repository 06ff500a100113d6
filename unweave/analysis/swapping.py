"""A path from a small coder to a large one: groups of like latents are swapped one after another.

Leask, Bussmann et al. 2025 (arXiv 2502.04878). Latents of the two coders whose decoder rows have a cosine over a
threshold are joined; the connected components of that graph are the groups. A group may be novel (latents of the large
coder only), common (of both) or dropped (of the small one only). Novel groups come in first, then common groups change
sides, then dropped ones leave, so that the path starts at the small coder and ends at the large one. What the mixture
writes is the sum of the decoder rows that are in, each with the activation it has in its own coder; the decoders'
biases are mixed in the share of the steps that are done.

Where groups stand for the same features, the error falls all the way. L0 rises while novel groups come in.
"""

from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.analysis.cosines import pairs_over
from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.metrics.base import Definition, Metric, Sums, ratio
from unweave.types import Codes

DEFINITIONS = (
    Definition(
        "swap_rise",
        "Rise along the path",
        "Sum of all rises of the error on the way from the small coder to the large one, over the small one's error.",
        "near 0: each group that is swapped lowers the error",
    ),
    Definition(
        "swap_gain",
        "Gain of the whole path",
        "How much lower the large coder's error is than the small one's, over the small one's error.",
        "over 0",
    ),
    Definition(
        "swap_peak_l0",
        "Most active latents on the path",
        "Largest mean number of active latents on the way, over that of the large coder.",
        "near 1",
    ),
)


class Groups(NamedTuple):
    """Which group each latent of two coders is in, numbered from 0."""

    small: Int[Tensor, " L"]
    large: Int[Tensor, " M"]

    @property
    def n(self) -> int:
        return 1 + int(torch.cat([self.small, self.large]).max())

    def kinds(self) -> dict[str, Int[Tensor, " G"]]:
        """The novel, common and dropped groups."""
        has = [torch.zeros(self.n, dtype=torch.bool).index_fill_(0, ids, True) for ids in self]
        kinds = {"novel": has[1] & ~has[0], "common": has[0] & has[1], "dropped": has[0] & ~has[1]}
        return {name: of_kind.nonzero().flatten() for name, of_kind in kinds.items()}


class SwapSteps(NamedTuple):
    """When each latent of the small coder leaves and each of the large one comes in: at a step from 1 to ``n``."""

    leave: Int[Tensor, " L"]
    enter: Int[Tensor, " M"]
    n: int


class SwappedRows(NamedTuple):
    """A batch of rows that both coders read, and what they should write."""

    x_BD: Float[Tensor, "B D_read"]
    y_BD: Float[Tensor, "B D_write"]
    blocks: Int[Tensor, " B"]


class SwapCurve(NamedTuple):
    """The mixtures from the small coder (0) to the large one (the last)."""

    mse: Float[Tensor, " S"]
    l0: Float[Tensor, " S"]


def swap_groups(small_LD: Float[Tensor, "L D"], large_MD: Float[Tensor, "M _"], threshold: float = 0.7) -> Groups:
    """Connected components of the pairs of decoder rows whose cosine is over a threshold."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = pairs_over(small_LD, large_MD, threshold)
    n_small, n = len(small_LD), len(small_LD) + len(large_MD)
    at = pairs.first.cpu().numpy(), pairs.second.cpu().numpy() + n_small
    labels = connected_components(coo_array((np.ones(len(at[0])), at), shape=(n, n)), directed=False)[1]
    groups = torch.from_numpy(labels.astype(np.int64))
    return Groups(groups[:n_small], groups[n_small:])


def swap_steps(groups: Groups, n: int = 20, delta_M: Float[Tensor, " M"] | None = None) -> SwapSteps:
    """Groups in order, spread evenly over the steps.

    ``delta_M``, from ``Stitching``, puts those first within novel groups that lower the error most.
    """
    if n < 1:
        raise UserError(f"a path needs at least 1 step, got {n}")
    kinds = groups.kinds()
    if delta_M is not None:
        gain = torch.zeros(groups.n, dtype=torch.float64)
        gain.index_add_(0, groups.large, delta_M.cpu().double().nan_to_num(0.0))
        kinds["novel"] = kinds["novel"][gain[kinds["novel"]].argsort(stable=True)]
    order = torch.cat([kinds["novel"], kinds["common"], kinds["dropped"]])
    step = torch.empty(groups.n, dtype=torch.int64)
    step[order] = 1 + torch.arange(groups.n) * n // groups.n
    return SwapSteps(step[groups.small], step[groups.large], n)


@final
class SwapPath(Metric[SwappedRows]):
    """Errors and active latents of the mixture at every step."""

    definitions = DEFINITIONS

    def __init__(self, small: SparseCoder, large: SparseCoder, steps: SwapSteps) -> None:
        came, expected = (len(steps.leave), len(steps.enter)), (small.n_latents, large.n_latents)
        if came != expected or small.wiring != large.wiring:
            raise UserError(
                f"a path needs two coders of one wiring and a step for each of their latents, got {came[0]} and "
                f"{came[1]} steps for {expected[0]} and {expected[1]} latents of {small.wiring} and {large.wiring}"
            )
        if small.wiring.skip:
            raise UserError("a skip path is no latent and cannot be swapped; give coders without one")
        self.small, self.large, self.steps = small, large, steps
        super().__init__(rows=(), error=(steps.n + 1,), active=(steps.n + 1,))

    @torch.no_grad()
    def update(self, batch: SwappedRows) -> None:
        sides = [(coder, coder.encode(batch.x_BD)) for coder in (self.small, self.large)]
        self.add("rows", batch.blocks, torch.ones(len(batch.x_BD)))
        written = self.small.decode(sides[0][1])
        active = _n_active(sides[0][1])
        errors, counts = [self._errors(written, batch)], [active]
        for step in range(1, self.steps.n + 1):
            gone, come = (_at_step(codes, step, when) for (_, codes), when in zip(sides, self.steps[:2], strict=True))
            written = written + self.large.decode(come) - self.small.decode(gone)
            # decode adds the whole bias every time
            written = written + (1 / self.steps.n - 1) * (self.large.b_dec - self.small.b_dec)
            active = active + _n_active(come) - _n_active(gone)
            errors.append(self._errors(written, batch))
            counts.append(active)
        self.add("error", batch.blocks, torch.stack(errors, 1))
        self.add("active", batch.blocks, torch.stack(counts, 1))

    def figures(self, sums: Sums) -> dict[str, Float[Tensor, " R"]]:
        error, active = sums["error"], sums["active"]
        return {
            "swap_rise": ratio(error.diff(dim=1).clamp(min=0).sum(1), error[:, 0]),
            "swap_gain": 1.0 - ratio(error[:, -1], error[:, 0]),
            "swap_peak_l0": ratio(active.amax(1), active[:, -1]),
        }

    def curve(self) -> SwapCurve:
        """Mean squared error and L0 after every step."""
        total = self.total()
        return SwapCurve(total["error"][0] / total["rows"], total["active"][0] / total["rows"])

    def _errors(self, written_BD: Float[Tensor, "B D"], batch: SwappedRows) -> Float[Tensor, " B"]:
        y_hat = self.small.wiring.denormalised(written_BD, batch.x_BD)
        return (batch.y_BD - y_hat).double().square().sum(1)


def _at_step(codes: Codes, step: int, when: Tensor) -> Codes:
    return codes.where(when.to(codes.latent_ids.device)[codes.latent_ids] == step)


def _n_active(codes: Codes) -> Float[Tensor, " B"]:
    zero = torch.zeros(codes.n_rows, dtype=torch.float64, device=codes.values.device)
    return zero.index_add_(0, codes.row_ids, (codes.values != 0).double())
