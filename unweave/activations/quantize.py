"""How rows are stored in a cache, and what that loses.

``float32`` keeps every bit, ``bfloat16`` rounds each number to 8 significant bits. ``int8`` has one scale per row, the
largest magnitude / 127: q = round(x / scale), x' = q * scale. What is lost is sum |x - x'|^2 / sum |x - mean|^2, with
the mean row of the shard that the rows lie in: the explained variance that no coder trained on the cache can win back.
"""

from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.errors import UserError, nearest

StoredDtype = Literal["float32", "bfloat16", "int8"]
_LEVELS = 127
_ROWS_AT_ONCE = 512
"""Rows whose error is found together, few enough to stay in a CPU's cache."""


class StoredRows(NamedTuple):
    """Rows as they lie in a shard."""

    x: Tensor
    """[B, D] in the stored dtype."""
    scale: Float[Tensor, " B"] | None = None
    """What each row of an int8 ``x`` is multiplied by; None for other dtypes."""

    def part(self, rows: slice) -> "StoredRows":
        return StoredRows(self.x[rows], None if self.scale is None else self.scale[rows])


def check_stored_dtype(name: str) -> StoredDtype:
    """Raise ``UserError`` for a name that is no dtype of a cache."""
    for known in get_args(StoredDtype):
        if name == known:
            return known
    known = get_args(StoredDtype)
    raise UserError(f"a cache stores {', '.join(known)}, got dtype {name!r}{nearest(name, known)}")


def store(x_BD: Float[Tensor, "B D"], dtype: StoredDtype) -> StoredRows:
    """Round rows to what a shard holds, on their own device."""
    x_BD = x_BD.float()
    if dtype != "int8":
        return StoredRows(x_BD.to(getattr(torch, dtype)))
    largest_B = x_BD.abs().amax(1) if x_BD.shape[0] else x_BD.new_empty(0)
    scale_B = largest_B / _LEVELS
    q_BD = (x_BD / scale_B.where(scale_B > 0, 1.0)[:, None]).round_().clamp_(-_LEVELS, _LEVELS)
    return StoredRows(q_BD.to(torch.int8), scale_B)


def restore(stored: StoredRows) -> Float[Tensor, "B D"]:
    """The float32 rows that stored ones stand for."""
    if stored.scale is None:
        return stored.x.float()
    return stored.x * stored.scale[:, None]


class Lost(NamedTuple):
    """Squared error of storing, and the squared distance of the rows to their mean, both summed over rows."""

    error: float
    spread: float

    @property
    def share(self) -> float:
        """Share of the variance that storing loses; 0 for rows that are all the same."""
        return self.error / self.spread if self.spread > 0 else 0.0


class LostInStoring:
    """Sums up what storing loses at one site: float32 within a row, float64 over rows."""

    def __init__(self) -> None:
        self._n_rows = 0
        self._sum_D: Tensor | None = None
        self._square: Tensor | float = 0.0
        self._error: Tensor | float = 0.0

    def update(self, x_BD: Float[Tensor, "B D"], stored: StoredRows) -> None:
        """Add rows and what is stored of them."""
        self._n_rows += x_BD.shape[0]
        for start in range(0, x_BD.shape[0], _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            x = x_BD[part].float()
            sum_D = x.sum(0).double()
            self._sum_D = sum_D if self._sum_D is None else self._sum_D + sum_D
            self._square = self._square + _square(x)
            if stored.x.dtype != torch.float32:
                self._error = self._error + _square(restore(stored.part(part)).sub_(x))

    def compute(self) -> Lost:
        """The sums so far; a spread that is NaN or infinite tells that some row was."""
        assert self._sum_D is not None, "no row was stored"
        spread = float(self._square) - self._sum_D.square().sum().item() / self._n_rows
        return Lost(float(self._error), 0.0 if spread < 0 else spread)


def _square(x_BD: Float[Tensor, "B D"]) -> Tensor:
    return torch.linalg.vector_norm(x_BD, dim=1).double().square().sum()
