"""What every figure of the comparisons and of the geometry means, by its name."""

from unweave.analysis import (
    cofiring,
    correlation,
    ensembles,
    families,
    frontier,
    geometry,
    matching,
    scaling,
    similarity,
    stitched_loss,
    stitching,
    swapping,
    swept,
    transfer,
)
from unweave.metrics.base import Definition

_MODULES = (
    geometry,
    matching,
    correlation,
    similarity,
    stitching,
    stitched_loss,
    swapping,
    families,
    cofiring,
    transfer,
    ensembles,
    frontier,
    scaling,
    swept,
)


def definitions() -> dict[str, Definition]:
    """In the order in which they are shown."""
    found = {d.name: d for module in _MODULES for d in module.DEFINITIONS}
    return found | {d.name: d for d in stitching.PROXY_DEFINITIONS}
