"""A place in a model: the tensor at the edge of a module, and the lenses through which it is read and put back.

A lens has a view of a tensor. An edit through it is written as raw + (what the change of the view means for raw), so
where the view is left alone the tensor comes back bit for bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from unweave.models.norms import Norm

Side = Literal["in", "out", "stream", "norm", "attention", "experts"]
"""Entering a module, leaving it, entering it while the block adds to the same tensor itself, or within a norm, the
attention of a module, or a mixture of experts."""


Change = Callable[[Tensor], Tensor | None]
"""From a tensor in the model to the one that takes its place, None to leave it."""


@runtime_checkable
class Handle(Protocol):
    """What makes the model call something, until it is removed."""

    def remove(self) -> None: ...


@runtime_checkable
class Lens(Protocol):
    """One way to look at a tensor."""

    def read(self, raw: Tensor) -> Tensor:
        """The view of ``raw``."""
        ...

    def write(self, raw: Tensor, new: Tensor) -> Tensor:
        """The tensor whose view is ``new``."""
        ...


@dataclass(frozen=True)
class Scaled:
    """Times a number, by which the block multiplies what it adds to the stream."""

    factor: float

    def read(self, raw: Tensor) -> Tensor:
        return raw * self.factor

    def write(self, raw: Tensor, new: Tensor) -> Tensor:
        return raw + (new - self.read(raw)) / self.factor


@dataclass(frozen=True)
class Columns:
    """Some columns of a projection that makes several tensors at once."""

    start: int
    stop: int

    def read(self, raw: Tensor) -> Tensor:
        return raw[..., self.start : self.stop]

    def write(self, raw: Tensor, new: Tensor) -> Tensor:
        return torch.cat([raw[..., : self.start], new, raw[..., self.stop :]], dim=-1)


@dataclass(frozen=True)
class Centred:
    """Less the mean over the width."""

    def read(self, raw: Tensor) -> Tensor:
        return raw - raw.mean(-1, keepdim=True)

    def write(self, raw: Tensor, new: Tensor) -> Tensor:
        return raw + (new - self.read(raw))


@dataclass(frozen=True, eq=False)
class Without:
    """Less a constant row."""

    constant_D: Tensor

    def read(self, raw: Tensor) -> Tensor:
        return raw - self.constant_D.to(raw)

    def write(self, raw: Tensor, new: Tensor) -> Tensor:
        return raw + (new - self.read(raw))


class Site(NamedTuple):
    """A tensor at the edge of a module."""

    name: str
    """Canonical name, the same however the site was asked for."""
    module: str
    """Dotted path of the module in the model."""
    side: Side
    block: str = ""
    """Path of the block around the module, which a change of the ``stream`` is carried past."""
    lenses: tuple[Lens, ...] = ()
    """Views of each other, the first of the module's own tensor."""
    norm: Norm | None = None
    """How the module normalises, on the side ``norm``."""
    is_flat: bool = False
    """The module has sequences end to end, [N * T, D]."""
    is_overwritten: bool = False
    """The model may write into the tensor later on, so that it has to be copied."""
    inner: str = ""
    """What is seen within attention, or within a mixture of experts."""

    @property
    def has_rows(self) -> bool:
        """Whether the tensor has a row for each token, and not numbers for pairs of tokens."""
        return self.inner not in ("scores", "pattern")

    @property
    def is_read_only(self) -> bool:
        """Whether an edit would change nothing: routers have chosen experts when they hand their logits on."""
        return self.inner == "router"

    def read(self, raw: Tensor) -> Tensor:
        """What the site holds, from the tensor at the module's edge."""
        for lens in self.lenses:
            raw = lens.read(raw)
        return raw

    def write(self, raw: Tensor, new: Tensor) -> Tensor:
        """The tensor at the module's edge for which the site holds ``new``."""
        views = [raw]
        for lens in self.lenses[:-1]:
            views.append(lens.read(views[-1]))
        for lens in reversed(self.lenses):
            new = lens.write(views.pop(), new)
        return new
