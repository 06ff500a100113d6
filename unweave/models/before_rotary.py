"""Queries and keys before their rotary embedding, where a module of the model writes them.

A rotary embedding (Su et al. 2021, arXiv 2104.09864) turns pairs of numbers in a query or key by angles that grow with
its position, and by none at position 0. So what a projection, or a norm behind it, writes for position 0 is there in
the query that meets the keys, times a number where the model scales it. Of all such modules the last one is meant.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.models.attention import inside_attention
from unweave.models.hooks import written_activations
from unweave.models.inputs import forward, random_inputs
from unweave.models.site import Lens, Site

_TOKENS = 5
_TOLERANCE = 8
"""In units of the model's relative rounding."""


@dataclass(frozen=True)
class HeadsInRows:
    """Side by side, of heads with an axis of their own in front of the width (2) or of the positions (1)."""

    axis: int

    def read(self, raw: Tensor) -> Tensor:
        return (raw if self.axis == 2 else raw.transpose(1, 2)).flatten(2)

    def write(self, raw: Tensor, new: Tensor) -> Tensor:
        heads = new.unflatten(2, (raw.shape[self.axis], raw.shape[-1]))
        return heads if self.axis == 2 else heads.transpose(1, 2)


@dataclass(frozen=True)
class HeadColumns:
    """Some columns of each group, of a projection that makes several tensors at once, one group behind the other."""

    n_groups: int
    start: int
    stop: int

    def read(self, raw: Tensor) -> Tensor:
        return raw.unflatten(-1, (self.n_groups, -1))[..., self.start : self.stop].flatten(-2)

    def write(self, raw: Tensor, new: Tensor) -> Tensor:
        groups, changed = raw.unflatten(-1, (self.n_groups, -1)), new.unflatten(-1, (self.n_groups, -1))
        return torch.cat([groups[..., : self.start], changed, groups[..., self.stop :]], -1).flatten(-2)


@torch.no_grad()
def find_before_rotary(model: Any, site: Site) -> Site | None:
    """Where the queries or keys of a site are before they are turned; None where no module writes them.

    The site itself comes back if nothing is done to them on the way.
    """
    seen, written = _pass(model, site.module, site.inner)
    for path, raw in reversed(written):
        for lenses, rows in _as_rows(raw, seen):
            for columns in _columns(rows.shape[-1], seen.shape[-1]):
                factor = _factor(seen[0, 0], _through(columns, rows[:, :1])[0, 0])
                if factor is None:
                    continue
                is_same = factor == 1 and torch.equal(seen, _through(columns, rows))
                found = Site(f"{site.name}_before_rotary", path, "out", lenses=(*lenses, *columns))
                return site if is_same else found
    return None


def _pass(model: Any, path: str, point: str) -> tuple[Float[Tensor, "1 T W"], list[tuple[str, Tensor]]]:
    """The queries or keys that meet, and what each module in their attention wrote before, in that order."""
    inputs = random_inputs(model, _TOKENS, torch.Generator().manual_seed(63))
    seen: list[Tensor] = []
    written: list[tuple[str, Tensor]] = []

    def keep(inner: str) -> Any:
        def hook(_: Any, args: Any, output: Any) -> None:
            x = written_activations(output)
            if x is not None and not seen:
                written.append((inner, x.clone()))

        return hook

    modules = model.get_submodule(path).named_modules(prefix=path)
    handles = [module.register_forward_hook(keep(inner)) for inner, module in modules]
    try:
        with inside_attention(model, {(path, point): lambda x: seen.append(x.clone())}):
            forward(model, inputs.to(next(model.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return seen[0], written


def _as_rows(raw: Tensor, like: Float[Tensor, "1 T W"]) -> list[tuple[tuple[Lens, ...], Float[Tensor, "1 T V"]]]:
    """The output of a module as a row for each position, in all ways in which it may be that."""
    if raw.ndim == 4:
        found = [((lens,), lens.read(raw)) for lens in (HeadsInRows(1), HeadsInRows(2))]
        return [(lenses, rows) for lenses, rows in found if rows.shape[:2] == like.shape[:2]]
    return [((), raw)] if raw.ndim == 3 and raw.shape[:2] == like.shape[:2] else []


def _columns(n_columns: int, width: int) -> Iterator[tuple[Lens, ...]]:
    """Where among the columns of a module there may be queries or keys of this width."""
    if n_columns == width:
        yield ()
        return
    for n_groups in (n for n in range(1, width + 1) if width % n == 0 and n_columns % n == 0):
        for start in range((n_columns - width) // n_groups + 1):
            yield (HeadColumns(n_groups, start, start + width // n_groups),)


def _through(lenses: tuple[Lens, ...], rows: Tensor) -> Tensor:
    for lens in lenses:
        rows = lens.read(rows)
    return rows


def _factor(a_W: Float[Tensor, "W"], b_W: Float[Tensor, "W"]) -> float | None:
    """The number by which b is a, to rounding."""
    a, b = a_W.double(), b_W.double()
    if not b.any():
        return None
    factor = float(a @ b / (b @ b))
    slack = _TOLERANCE * torch.finfo(a_W.dtype).eps * a.abs().max()
    if factor == 0 or (a - factor * b).abs().max() > slack:
        return None
    return 1.0 if abs(factor - 1) <= _TOLERANCE * torch.finfo(a_W.dtype).eps else factor
