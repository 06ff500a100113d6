"""Sparse coders, one architecture per file; the file name is the architecture's name everywhere."""

from unweave.coders.base import CoderConfig, CoderStep, Moment, Origin, SparseCoder
from unweave.coders.wiring import Port, Wiring
from unweave.registry import classes_in, lookup

__all__ = [
    "CoderConfig",
    "CoderStep",
    "Moment",
    "Origin",
    "Port",
    "SparseCoder",
    "Wiring",
    "architecture",
    "architectures",
]


def architectures() -> dict[str, type[SparseCoder]]:
    """Every architecture by name."""
    return classes_in(__name__, SparseCoder)


def architecture(name: str) -> type[SparseCoder]:
    """The architecture called ``name``."""
    return lookup(name, architectures(), "coder type")
