"""Numbers that stream: update, merge, compute. Each says what it means and what is good."""

from unweave.metrics.base import CodedRows, Definition, Metric
from unweave.metrics.density import Density
from unweave.metrics.first_position import FirstPosition, PlacedErrors
from unweave.metrics.ground_truth import DetectedFeatures, FeatureDetection
from unweave.metrics.jackknife import Jackknife
from unweave.metrics.l0 import L0
from unweave.metrics.reconstruction import Reconstruction
from unweave.metrics.shrinkage import Shrinkage
from unweave.metrics.spliced_loss import SplicedLoss, SplicedLosses

__all__ = [
    "L0",
    "CodedRows",
    "Definition",
    "Density",
    "DetectedFeatures",
    "FeatureDetection",
    "FirstPosition",
    "Jackknife",
    "Metric",
    "PlacedErrors",
    "Reconstruction",
    "Shrinkage",
    "SplicedLoss",
    "SplicedLosses",
]


def definitions() -> dict[str, Definition]:
    """Every figure by its name in results.json."""
    return {
        d.name: d for metric in (Reconstruction, L0, Density, FirstPosition, SplicedLoss) for d in metric.definitions
    }
