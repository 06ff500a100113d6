"""How well a coder's latents stand for features that are known, on synthetic rows or a toy model.

With c_lf = |cos(W_dec_l, f_f)|, the absolute cosine of a latent's decoder row and a feature's direction:

mcc         mean of c over the pairs of the one-to-one matching with the largest sum (Hungarian algorithm), which has
            min(L, F) pairs; SAELens, after Song et al. 2025 (2505.20254).
uniqueness  number of distinct features among m(l) = argmax_f c_lf, divided by L; SAELens.
precision   TP / (TP + FP) of "latent l is active" as a sign that "feature m(l) is active",
recall      TP / (TP + FN), and
f1          2 TP / (2 TP + FP + FN); each is 0 where it is 0 / 0, and averaged over all latents.

The detection figures follow SAELens: each latent is judged by its best-matching feature, not by the one-to-one
matching, so two latents may share a feature, and dead latents count as 0.
"""

from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unweave.errors import UserError
from unweave.metrics.base import Definition, Metric, Sums, blocks_of
from unweave.types import Codes

_CELLS = 2**24
"""Cosines that are held at once where not all are needed."""


@torch.no_grad()
def mcc(
    W_dec_LD: Float[Tensor, "L D"],
    features_FD: Float[Tensor, "F _"],
    can_fire_F: Bool[Tensor, " F"] | None = None,
) -> float:
    """Mean absolute cosine under the best one-to-one matching, among those features that can fire if given.

    Holds all L x F cosines in double precision; the matching takes seconds for a few thousand.
    """
    from scipy.optimize import linear_sum_assignment

    if can_fire_F is not None:
        features_FD = features_FD[can_fire_F]
    _check_shapes(W_dec_LD, features_FD)
    directions = F.normalize(features_FD.double(), dim=1).to(W_dec_LD.device)
    cosines_LF = (F.normalize(W_dec_LD.double(), dim=1) @ directions.T).abs().cpu().numpy()
    return float(cosines_LF[linear_sum_assignment(cosines_LF, maximize=True)].mean())


@torch.no_grad()
def best_matches(W_dec_LD: Float[Tensor, "L D"], features_FD: Float[Tensor, "F _"]) -> Int[Tensor, " L"]:
    """The feature with the largest absolute cosine to each latent's decoder row; the first of equals."""
    _check_shapes(W_dec_LD, features_FD)
    directions = F.normalize(features_FD.double(), dim=1).to(W_dec_LD.device)
    blocks = W_dec_LD.split(max(1, _CELLS // len(features_FD)))
    return torch.cat([(block.double() @ directions.T).abs().argmax(1) for block in blocks])


def uniqueness(W_dec_LD: Float[Tensor, "L D"], features_FD: Float[Tensor, "F _"]) -> float:
    """Distinct best-matching features per latent: 1 if every latent has a feature of its own."""
    matches_L = best_matches(W_dec_LD, features_FD)
    return len(matches_L.unique()) / len(matches_L)


class DetectedFeatures(NamedTuple):
    """What a coder says of a batch of rows, and what is true of them."""

    codes: Codes
    magnitudes_BF: Codes
    """The features that are in the rows, in the place of latents."""


@final
class FeatureDetection(Metric[DetectedFeatures]):
    """Rows on which each latent, each feature, and each latent together with its feature is active."""

    definitions = (
        Definition(
            "precision",
            "Precision",
            "Share of the rows where a latent is active on which its best-matching feature is too, mean over latents.",
            "near 1; low where latents fire without their feature",
        ),
        Definition(
            "recall",
            "Recall",
            "Share of the rows where a latent's best-matching feature is active on which the latent is, over latents.",
            "near 1; low where a latent leaves out part of its feature",
        ),
        Definition(
            "f1",
            "F1",
            "Harmonic mean of a latent's precision and recall, averaged over latents; dead latents count as 0.",
            "near 1",
        ),
        Definition(
            "dead_share",
            "Dead latents",
            "Share of latents that fired on none of the measured rows. It depends on how many rows were measured.",
            "under 10 %",
        ),
    )

    def __init__(self, matches_L: Int[Tensor, " L"], n_features: int) -> None:
        """``matches_L`` says by which feature each latent is judged, for example that of ``best_matches``."""
        super().__init__(latents=(len(matches_L),), both=(len(matches_L),), features=(n_features,))
        self.matches_L = matches_L.cpu()

    def update(self, batch: DetectedFeatures) -> None:
        """Synthetic rows depend on nothing, so they fall into blocks in turn."""
        n_features = self.sums["features"].shape[1]
        _check_batch(batch, len(self.matches_L), n_features)
        rows, latents = _active(batch.codes)
        true_rows, features = _active(batch.magnitudes_BF)
        wanted = rows * n_features + self.matches_L[latents]
        hits = torch.isin(wanted, true_rows * n_features + features)
        for name, where, what in (
            ("latents", rows, latents),
            ("features", true_rows, features),
            ("both", rows[hits], latents[hits]),
        ):
            self.add_at(name, blocks_of(where), what, torch.ones(len(what)))

    def merge(self, other: "FeatureDetection") -> None:
        assert torch.equal(self.matches_L, other.matches_L), "latents are judged by other features"
        super().merge(other)

    def figures(self, sums: Sums) -> dict[str, Float[Tensor, " R"]]:
        precision_RL, recall_RL, f1_RL = self._rates(sums)
        return {
            "precision": precision_RL.mean(1),
            "recall": recall_RL.mean(1),
            "f1": f1_RL.mean(1),
            "dead_share": (sums["latents"] == 0).double().mean(1),
        }

    @property
    def precision_L(self) -> Float[Tensor, " L"]:
        """Precision of each latent, 0 for one that never fired."""
        return self._rates(self.total())[0][0]

    @property
    def recall_L(self) -> Float[Tensor, " L"]:
        """Recall of each latent, 0 for one whose feature never fired."""
        return self._rates(self.total())[1][0]

    @property
    def f1_L(self) -> Float[Tensor, " L"]:
        """F1 of each latent."""
        return self._rates(self.total())[2][0]

    def _rates(self, sums: Sums) -> tuple[Float[Tensor, "R L"], Float[Tensor, "R L"], Float[Tensor, "R L"]]:
        """Precision, recall and F1 of each latent."""
        latents_RL, both_RL, features_RL = sums["latents"], sums["both"], sums["features"][:, self.matches_L]
        f1_RL = 2 * both_RL / (latents_RL + features_RL).clamp(min=1)
        return both_RL / latents_RL.clamp(min=1), both_RL / features_RL.clamp(min=1), f1_RL


def _active(codes: Codes) -> tuple[Int[Tensor, " E"], Int[Tensor, " E"]]:
    """Rows and ids of the entries that are not an explicit 0."""
    active = codes.values != 0
    return codes.row_ids[active].cpu(), codes.latent_ids[active].cpu()


def _check_batch(batch: DetectedFeatures, n_latents: int, n_features: int) -> None:
    came = batch.codes.n_rows, batch.codes.n_latents, batch.magnitudes_BF.n_latents
    expected = batch.magnitudes_BF.n_rows, n_latents, n_features
    if came != expected:
        raise UserError(
            f"codes and features of a batch do not fit: rows, latents and features are {came}, expected {expected}; "
            "encode the rows that came with the features"
        )


def _check_shapes(W_dec_LD: Float[Tensor, "L D"], features_FD: Float[Tensor, "F _"]) -> None:
    if W_dec_LD.shape[1] != features_FD.shape[1] or not len(W_dec_LD) or not len(features_FD):
        raise UserError(
            "latents and features need the same width and at least one each, got decoder rows "
            f"{list(W_dec_LD.shape)} and feature directions {list(features_FD.shape)}"
        )
