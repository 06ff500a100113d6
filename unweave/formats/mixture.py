"""Documents of several sources in turn, each source as often as its weight says.

Of source i with share w_i of the weights, document number j (from 0) may come from the turn after floor(j / w_i) on and
is due by turn ceil((j + 1) / w_i). Of the documents that may come, the one due first does. Windows of this form can
always be kept (Tijdeman, The chairman assignment problem, 1980), so after n turns every source has had n * w_i
documents to within less than one. Taking the largest deficit first, the obvious rule, does not keep within one.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import final

from unweave.errors import UserError
from unweave.formats.documents import Documents, Told
from unweave.types import Document


@final
class Turns:
    """Which source comes when; the pattern repeats after ``period`` turns."""

    def __init__(self, weights: Sequence[float]) -> None:
        fractions = [Fraction(str(weight)) for weight in weights]
        shares = [fraction / sum(fractions) for fraction in fractions]
        self.period = math.lcm(*(share.denominator for share in shares))
        self.per_period = [int(share * self.period) for share in shares]

    def after(self, n: int) -> list[int]:
        """How many documents of each source came in the first ``n`` turns."""
        rounds, rest = divmod(n, self.period)
        counts = [0] * len(self.per_period)
        for turn in range(rest):
            counts[self._next(turn, counts)] += 1
        return [rounds * each + count for each, count in zip(self.per_period, counts, strict=True)]

    def starting(self, n: int) -> Iterator[int]:
        """The sources of the turns from number ``n`` on, without end."""
        turn = n % self.period
        counts = self.after(turn)
        while True:
            source = self._next(turn, counts)
            counts[source] += 1
            turn += 1
            if turn == self.period:
                turn, counts = 0, [0] * len(counts)
            yield source

    def lasting(self, source: int, count: int) -> int:
        """How many turns there are before the one that needs document number ``count`` of a source."""
        turn = max(0, count - 1) * self.period // self.per_period[source]
        given = self.after(turn)[source]
        for chosen in self.starting(turn):
            given += chosen == source
            if given > count:
                break
            turn += 1
        return turn

    def _next(self, turn: int, counts: list[int]) -> int:
        best, due_first = -1, 0
        for source, each in enumerate(self.per_period):
            if counts[source] * self.period < each * (turn + 1):
                due = -(-(counts[source] + 1) * self.period // each)
                if best < 0 or due < due_first:
                    best, due_first = source, due
        return best


@final
@dataclass(frozen=True)
class MixedDocuments(Documents):
    """Documents of several sources in turn; one pass ends when every source was read through at least once."""

    sources: tuple[Documents, ...]
    weights: tuple[float, ...]

    @property
    def count(self) -> int | None:
        lasting = []
        for i, source in enumerate(self.sources):
            if source.count is None:
                return None
            lasting.append(self._turns.lasting(i, source.count))
        return max(lasting)

    def __iter__(self) -> Iterator[Document]:
        reading = [iter(source) for source in self.sources]
        ended: set[int] = set()
        for i in self._turns.starting(0):
            document = next(reading[i], None)
            if document is None:
                ended.add(i)
                if len(ended) == len(self.sources):
                    return
                reading[i] = iter(self.sources[i])
                document = next(reading[i], None)
            if document is None:
                raise UserError("a source of text.mix has no documents to read; remove it, or give it a text")
            yield document

    def forever(self, start: int = 0, told: Told | None = None) -> Iterator[Document]:
        turns = self._turns
        starts = zip(self.sources, turns.after(start), strict=True)
        reading = [source.forever(number, told) for source, number in starts]
        return (next(reading[i]) for i in turns.starting(start))

    def names(self) -> Iterator[str]:
        reading = [source.names() for source in self.sources]
        for i in self._turns.starting(0):
            name = next(reading[i], None)
            if name is None:
                reading[i] = self.sources[i].names()
                name = next(reading[i], None)
            if name is None:
                return
            yield name

    def identity(self) -> Iterator[bytes]:
        for source, weight in zip(self.sources, self.weights, strict=True):
            yield f"{weight}\0".encode()
            yield from source.identity()

    @property
    def _turns(self) -> Turns:
        return Turns(self.weights)
