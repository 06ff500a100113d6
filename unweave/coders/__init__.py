"""Sparse coders, one architecture per file; the file name is the architecture's name everywhere."""

from unweave.coders.base import CoderConfig, CoderStep, Moment, Origin, SparseCoder
from unweave.coders.wiring import Port, Wiring
from unweave.errors import UserError
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
    "trainable",
    "trainable_architectures",
]


def architectures() -> dict[str, type[SparseCoder]]:
    """Every architecture by name."""
    return classes_in(__name__, SparseCoder)


def architecture(name: str) -> type[SparseCoder]:
    """The architecture called ``name``."""
    return lookup(name, architectures(), "coder type")


def trainable_architectures() -> dict[str, type[SparseCoder]]:
    """Every architecture that can be trained, by name."""
    return {name: cls for name, cls in architectures().items() if cls.trains}


def trainable(name: str) -> type[SparseCoder]:
    """The architecture called ``name``; raises ``UserError`` for one that is only loaded and measured."""
    cls = architecture(name)
    if not cls.trains:
        known = ", ".join(trainable_architectures())
        raise UserError(f"coders of type {name} can be loaded and measured, not trained; train one of: {known}")
    return cls
