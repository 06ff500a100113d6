"""What each block adds to the residual stream, found by solving the algebra of one recorded pass.

With x what enters a block and y what leaves it, a and m outputs of modules in it, and c a number (1 nearly always):

- sequential: a module reads u = x + c a, and y = u + c m. Then u is the stream between attention and MLP.
- parallel: y = x + c (a + m), and there is no such u.
- post-norm: one norm reads x + c a and gives u, another reads u + c m and gives y.

Sums are the same where they are so bit for bit, in the model's own precision, or each element is to its rounding. Where
several modules write the same tensor, the outermost is taken; one that hands on what it reads is none of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from unweave.models.probe import Edge, Event, Recording

Kind = Literal["sequential", "parallel", "post-norm"]
_TOLERANCE = 8
"""In units of the model's relative rounding, for each element."""
_UNEXPLAINED = 0.3
"""Most that may be left of what was added, in norm: where a step of the stream is lost in its rounding."""


class Part(NamedTuple):
    """What a module writes and, times a factor, the block adds."""

    event: Event
    factor: float


class Added(NamedTuple):
    """What attention and MLP add in one block, and where the stream between them is found."""

    kind: Kind
    attention: Part
    mlp: Part
    middle: Event | None
    """Reads the stream between the two, alone; of a post-norm block, writes it."""
    between: Edge | None
    """The stream between the two."""


class Comparison(NamedTuple):
    """Whether tensors are the same: bit for bit, or else to the rounding of the model's own precision."""

    dtype: torch.dtype

    def same(self, a: Edge | None, b: Edge | None) -> bool:
        """Whether two modules meet the same tensor."""
        return a is not None and b is not None and torch.equal(a.rows, b.rows)

    def is_sum(self, total: Tensor, before: Tensor, added: Sequence[Tensor], factor: float) -> bool:
        """Whether total = before + factor * (what is added), and more than a rounding of what came before."""
        whole = torch.stack(list(added)).sum(0)
        by_hand = self._round(before + self._round(factor * self._round(whole)))
        if torch.equal(total, by_hand):
            return True
        unexplained = (total - before - factor * whole).norm() / (total - before).norm()
        parts = [factor * part for part in added]
        return bool(unexplained <= _UNEXPLAINED) and self._close(total, by_hand, before, *parts)

    def is_product(self, product: Tensor, a: Tensor, b: Tensor) -> bool:
        """Whether product = a * b."""
        return torch.equal(product, self._round(a * b)) or self._close(product, a * b)

    def _close(self, a: Tensor, b: Tensor, *terms: Tensor) -> bool:
        size = sum((term.abs() for term in terms), a.abs() + b.abs())
        return bool(((a - b).abs() <= _TOLERANCE * torch.finfo(self.dtype).eps * size).all())

    def _round(self, a: Tensor) -> Tensor:
        return a.to(self.dtype).to(a.dtype)


def find_blocks(model: nn.Module, recording: Recording) -> list[str]:
    """The longest list of modules of which each reads what the one before has written."""
    comparison, found = Comparison(recording.dtype), []
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module):
            events = [recording.events.get(f"{path}.{i}") for i in range(len(module))]
            if _is_chain(events, comparison):
                found.append((len(module), sum(p.numel() for p in module.parameters()), path))
    if not found:
        return []
    n_blocks, _, path = max(found)
    return [f"{path}.{i}" for i in range(n_blocks)]


def solve(recording: Recording, path: str) -> Added | None:
    """What the block at ``path`` adds, or None where it is none of the three kinds."""
    block = recording.events[path]
    assert block.read is not None and block.written is not None
    comparison = Comparison(recording.dtype)
    writers = [e for e in recording.within(path) if _fits(e.written, block.read) and not hands_on(e, comparison)]
    return (
        _sequential(block, recording.within(path), writers, comparison)
        or _parallel(block, writers, comparison)
        or _post_norm(block, writers, comparison)
    )


def hands_on(event: Event, comparison: Comparison) -> bool:
    """Whether a module returns what it reads, as dropout does in a model in use."""
    return not any(True for _ in event.module.parameters()) and comparison.same(event.read, event.written)


def _sequential(block: Event, inner: list[Event], writers: list[Event], comparison: Comparison) -> Added | None:
    x, y = _rows(block.read), _rows(block.written)
    for middle in sorted(inner, key=lambda e: e.started):
        if not _fits(middle.read, block.read) or comparison.same(middle.read, block.read):
            continue
        u = _rows(middle.read)
        attention = _part(block, x, u, (e for e in writers if e.ended < middle.started), comparison)
        if attention and (mlp := _part(block, u, y, (e for e in writers if e.ended > middle.started), comparison)):
            is_only = all(_is_part(e, middle) or not comparison.same(e.read, middle.read) for e in inner)
            return Added("sequential", attention, mlp, middle if is_only else None, middle.read)
    return None


def _parallel(block: Event, writers: list[Event], comparison: Comparison) -> Added | None:
    x, y = _rows(block.read), _rows(block.written)
    for first, second in _pairs(writers):
        a, m = _rows(first.written), _rows(second.written)
        factor = None if comparison.same(first.written, second.written) else _factor(block, x, y, (a, m), comparison)
        if factor is not None:
            attention, mlp = (Part(_outermost(writers, e, comparison), factor) for e in (first, second))
            if "att" in mlp.event.path.rpartition(".")[2] and "att" not in attention.event.path.rpartition(".")[2]:
                attention, mlp = mlp, attention
            return Added("parallel", attention, mlp, None, None)
    return None


def _post_norm(block: Event, writers: list[Event], comparison: Comparison) -> Added | None:
    x = _rows(block.read)
    last = [e for e in writers if comparison.same(e.written, block.written) and _fits(e.read, block.read)]
    for middle in writers:
        if not _fits(middle.read, block.read):
            continue
        earlier = (e for e in writers if e.ended < middle.started)
        attention = _part(block, x, _rows(middle.read), earlier, comparison)
        if attention is None:
            continue
        for norm in last:
            between = (e for e in writers if middle.ended < e.ended < norm.started)
            if mlp := _part(block, _rows(middle.written), _rows(norm.read), between, comparison):
                return Added("post-norm", attention, mlp, middle, middle.written)
    return None


def _part(block: Event, before: Tensor, after: Tensor, writers: Iterable[Event], comparison: Comparison) -> Part | None:
    """The module whose output, times a factor, is what ``after`` has more than ``before``."""
    found: list[Part] = []
    for event in writers:
        factor = _factor(block, before, after, (_rows(event.written),), comparison)
        if factor is not None:
            found.append(Part(event, factor))
    return max(found, key=lambda part: (part.factor == 1, part.event.ended), default=None)


def _factor(block: Event, before: Tensor, after: Tensor, added: Sequence[Tensor], equal: Comparison) -> float | None:
    """The number times which what is added gives the difference: 1, one that the block keeps, or by least squares."""
    difference, a = after - before, torch.stack(list(added)).sum(0)
    if not difference.any() or not a.any():
        return None
    least_squares = float((difference * a).sum() / a.square().sum())
    kept = [value for value in vars(block.module).values() if isinstance(value, float) and value]
    for factor in (1.0, *kept, least_squares):
        if equal.is_sum(after, before, added, factor):
            return factor
    return None


def _outermost(writers: list[Event], event: Event, comparison: Comparison) -> Event:
    return max((e for e in writers if comparison.same(e.written, event.written)), key=lambda e: e.ended)


def _is_part(event: Event, middle: Event) -> bool:
    """Whether a module is another, or one within it, or around it."""
    one, other = f"{event.path}.", f"{middle.path}."
    return one.startswith(other) or other.startswith(one)


def _pairs(events: list[Event]) -> Iterator[tuple[Event, Event]]:
    for i, first in enumerate(events):
        for second in events[i + 1 :]:
            yield first, second


def _is_chain(events: list[Event | None], comparison: Comparison) -> bool:
    before: Event | None = None
    for event in events:
        if event is None or event.read is None or not _fits(event.written, event.read):
            return False
        if before is not None and not comparison.same(before.written, event.read):
            return False
        before = event
    return True


def _fits(edge: Edge | None, stream: Edge | None) -> bool:
    """Whether a tensor may be added to the stream: as it is, or with its sequences end to end."""
    if edge is None or stream is None or edge.rows.shape != stream.rows.shape:
        return False
    n_rows = 1
    for length in stream.leading:
        n_rows *= length
    return edge.leading in (stream.leading, (n_rows,))


def _rows(edge: Edge | None) -> Any:
    assert edge is not None
    return edge.rows
