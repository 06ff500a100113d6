"""Numbers that stream: update, merge, compute. Each says what it means and what is good."""

from unweave.metrics.base import CodedRows, Definition, Metric, Sums, blocks_of
from unweave.metrics.density import Density
from unweave.metrics.first_position import FirstPosition, PlacedErrors
from unweave.metrics.ground_truth import DetectedFeatures, FeatureDetection
from unweave.metrics.kurtosis import Kurtosis
from unweave.metrics.l0 import L0
from unweave.metrics.next_tokens import NextTokens, ReplacedLosses, TokenLosses
from unweave.metrics.outlying_rows import KindsOfRows, OutlyingRows
from unweave.metrics.reconstruction import Reconstruction
from unweave.metrics.row_ratios import RowRatios
from unweave.metrics.spliced_loss import SplicedLoss

__all__ = [
    "L0",
    "CodedRows",
    "Definition",
    "Density",
    "DetectedFeatures",
    "FeatureDetection",
    "FirstPosition",
    "KindsOfRows",
    "Kurtosis",
    "Metric",
    "NextTokens",
    "OutlyingRows",
    "PlacedErrors",
    "Reconstruction",
    "ReplacedLosses",
    "RowRatios",
    "SplicedLoss",
    "TokenLosses",
    "blocks_of",
    "core_metric",
    "metric_name",
]

CORE = (Reconstruction, L0, SplicedLoss, Density, RowRatios, Kurtosis, FirstPosition, OutlyingRows)
"""What is measured of every coder, in the order in which it is shown."""


def core_metric(name: str, sums: Sums) -> Metric:
    """A metric of those above with sums that were kept, by the name of its file."""
    cls = {metric_name(metric): metric for metric in CORE}[name]
    metric = cls.__new__(cls)
    metric.sums = dict(sums)
    return metric


def metric_name(metric: type[Metric]) -> str:
    """The name of a metric's file."""
    return metric.__module__.rpartition(".")[2]


def definitions() -> dict[str, Definition]:
    """Every figure by its name in results.json."""
    return {d.name: d for metric in CORE for d in metric.definitions}
