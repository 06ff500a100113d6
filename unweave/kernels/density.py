"""When a batch of codes is so full that dense products beat sparse ones."""

from unweave.types import Codes

DENSE_FROM = 0.2
"""Share of active entries from which a dense product is as fast; measured by ``benchmarks/density.py``."""


def is_dense(codes: Codes) -> bool:
    """Whether operations on these codes take the dense route; both routes agree to rounding."""
    return codes.density >= DENSE_FROM
