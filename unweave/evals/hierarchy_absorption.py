"""Absorption where the truth is known: is a parent's latent silent because a child feature is there?

On rows of a synthetic forest, a child feature fires only where its parent does. With l(f) the latent whose decoder row
has the largest absolute cosine to feature f:

    parent_silent_with_child  P(l(parent) silent | child fires), mean over children
    parent_silent_alone       P(l(parent) silent | parent fires and none of its children), mean over parents
    parent_absorbed           the first less, for each child, that of its own parent, mean over children
    child_holds_parent        |cos(d_l(child), parent)|, mean over children, against 0 of orthogonal features

A latent that merely misses its feature now and then is silent as often alone, and nothing is absorbed.
"""

from collections.abc import Mapping
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from unweave.activations.synthetic import SyntheticData
from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.evals.measured import Measured
from unweave.metrics.base import Definition, Metric, Sums, blocks_of, ratio
from unweave.metrics.ground_truth import DetectedFeatures
from unweave.types import Codes

_ROWS_AT_ONCE = 4096


@final
class ParentSilence(Metric[DetectedFeatures]):
    """Rows on which a child fires, a parent fires alone, and the parent's latent is silent on them."""

    definitions = (
        Definition(
            "parent_silent_with_child",
            "Parent silent where a child is",
            "Share of the rows with a child feature on which the latent of its parent is silent.",
            "near 0",
        ),
        Definition(
            "parent_silent_alone",
            "Parent silent on its own",
            "Share of the rows with a parent feature and none of its children on which its latent is silent.",
            "near 0",
        ),
        Definition(
            "parent_absorbed",
            "Parent absorbed by its children",
            "How much more often the latent of a parent is silent where a child is than where there is none.",
            "near 0",
        ),
    )

    def __init__(self, latents_F: Int[Tensor, " F"], parents_F: Int[Tensor, " F"]) -> None:
        """``latents_F`` is the latent that stands for each feature; ``parents_F`` is -1 for a root."""
        n_features = len(parents_F)
        super().__init__(**dict.fromkeys(("fires", "silent", "alone", "silent_alone"), (n_features,)))
        self.latents_F, self.parents_F = latents_F.cpu(), parents_F.cpu()

    def update(self, batch: DetectedFeatures) -> None:
        """Synthetic rows depend on nothing, so they fall into blocks in turn."""
        fires_BF, active_BL = (_active(codes) for codes in (batch.magnitudes_BF, batch.codes))
        blocks_B = blocks_of(torch.arange(len(fires_BF)))
        has_parent = self.parents_F >= 0
        parents = self.parents_F.clamp(min=0)
        silent_BF = ~active_BL[:, self.latents_F]
        child_BF = fires_BF & has_parent
        self.add("fires", blocks_B, child_BF.float())
        self.add("silent", blocks_B, (child_BF & silent_BF[:, parents]).float())
        n_children_BF = torch.zeros(fires_BF.shape).index_add_(1, parents[has_parent], child_BF[:, has_parent].float())
        is_parent_F = torch.isin(torch.arange(len(parents)), parents[has_parent])
        alone_BF = fires_BF & is_parent_F & (n_children_BF == 0)
        self.add("alone", blocks_B, alone_BF.float())
        self.add("silent_alone", blocks_B, (alone_BF & silent_BF).float())

    def figures(self, sums: Sums) -> dict[str, Float[Tensor, " R"]]:
        with_child_RF = ratio(sums["silent"], sums["fires"])
        alone_RF = ratio(sums["silent_alone"], sums["alone"])
        difference_RF = with_child_RF - alone_RF[:, self.parents_F.clamp(min=0)]
        return {
            "parent_silent_with_child": with_child_RF.nanmean(1),
            "parent_silent_alone": alone_RF.nanmean(1),
            "parent_absorbed": difference_RF.nanmean(1),
        }


CHILD_HOLDS_PARENT = Definition(
    "child_holds_parent",
    "Parent in the child's latent",
    "Absolute cosine of the decoder row of a child's latent with the direction of the child's parent.",
    "near 0; it follows from the weights and has no error",
)


@torch.no_grad()
def measure_hierarchy(
    data: SyntheticData, coders: Mapping[str, SparseCoder], *, n_rows: int = 50_000, seed: int = 0
) -> dict[str, Measured]:
    """The figures of several coders of the same synthetic rows, on the device of the data.

    Raises ``UserError`` for data without a hierarchy and for coders of another width.
    """
    if not (data.parents_F >= 0).any():
        raise UserError("these synthetic features have no parents; set synthetic.roots, branching and depth")
    for name, coder in coders.items():
        if coder.d_model != data.config.d_model or coder.wiring.d_write != data.config.d_model:
            raise UserError(f"coder {name!r} is of width {coder.d_model}, the rows of {data.config.d_model}")
    latents = {name: best_latents(coder.W_dec, data.features_FD) for name, coder in coders.items()}
    metrics = {name: ParentSilence(latents[name], data.parents_F) for name in coders}
    generator = torch.Generator(data.features_FD.device).manual_seed(seed)
    for start in range(0, n_rows, _ROWS_AT_ONCE):
        sample = data.sample(min(_ROWS_AT_ONCE, n_rows - start), generator)
        for name, coder in coders.items():
            metrics[name].update(DetectedFeatures(coder.encode(sample.x_BD), sample.magnitudes_BF))
    found = {}
    for name, metric in metrics.items():
        held = _child_holds_parent(coders[name].W_dec[latents[name]], data)
        figures = metric.compute() | {"child_holds_parent": held}
        found[name] = Measured(figures, metric.standard_errors(), n_rows, {})
    return found


def best_latents(W_dec_LD: Float[Tensor, "L D"], features_FD: Float[Tensor, "F D"]) -> Int[Tensor, " F"]:
    """The latent whose decoder row has the largest absolute cosine to each feature; the first of equals."""
    return (F.normalize(W_dec_LD, dim=1) @ F.normalize(features_FD, dim=1).T).abs().argmax(0)


def _child_holds_parent(own_FD: Float[Tensor, "F D"], data: SyntheticData) -> float:
    children = (data.parents_F >= 0).nonzero().flatten()
    parents_CD = data.features_FD[data.parents_F[children]]
    return F.cosine_similarity(own_FD[children], parents_CD, dim=1).abs().mean().item()


def _active(codes: Codes) -> Tensor:
    """Which latents are active on each row, [B, L]."""
    return codes.dense().cpu() != 0
