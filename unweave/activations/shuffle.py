"""Mix rows of many documents in one preallocated buffer, so that the rows of a training batch are unrelated."""

from collections.abc import Iterable, Iterator, Mapping

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from unweave.activations.sequences import Sequences
from unweave.errors import UserError
from unweave.types import Rows, TextPosition


class Shuffle:
    """Batches of ``batch`` rows per site in random order; every row comes out exactly once.

    A buffer of ``n_buffer`` rows is filled, then half of it is served at random and the served places are filled anew.
    When the source ends, what is left is served; the last batch may be smaller.
    """

    def __init__(
        self,
        rows: Iterable[Rows | Sequences],
        n_buffer: int,
        batch: int,
        generator: torch.Generator,
        n_rows: int | None = None,
    ) -> None:
        """``n_rows``: how many will be asked for, so that no more are taken from the source; None: all that it has."""
        if n_buffer < 2 * batch:
            raise UserError(f"the shuffle buffer needs at least two batches of rows, got {n_buffer} for {batch}")
        self.batch = batch
        self.generator = generator
        self._source = iter(rows)
        self._buffer = _Buffer(n_buffer)
        self._left = n_rows
        """Rows that will still be asked for."""
        self._more = True
        self._served = torch.empty(0, dtype=torch.int64)
        """Places of the buffer that are served before it is filled again, in order."""
        self._next = 0

    def __iter__(self) -> Iterator[dict[str, Shaped[Tensor, "B _"]]]:
        return self

    def __next__(self) -> dict[str, Shaped[Tensor, "B _"]]:
        if self._next == len(self._served):
            self._refill()
        chosen = self._served[self._next : self._next + self.batch]
        self._next += len(chosen)
        if self._left is not None:
            self._left -= len(chosen)
        return self._buffer.take(chosen)

    @property
    def n_bytes(self) -> int:
        """Memory of the buffer; 0 before the first batch."""
        return sum(storage.nbytes for storage in self._buffer.storage.values())

    @property
    def after(self) -> TextPosition | None:
        """Where the source has to go on for ``load_state``; None where it does not say."""
        return self._buffer.after

    def state(self) -> dict[str, Tensor]:
        """Everything that decides which batches come, apart from the source."""
        buffer = self._buffer
        state = {
            "generator": self.generator.get_state(),
            "served": self._served,
            "next": torch.tensor(self._next),
            "more": torch.tensor(self._more),
        }
        state |= {f"buffer.{site}": x[: buffer.n_filled] for site, x in buffer.storage.items()}
        return state | {f"spill.{site}": x for site, x in buffer.spill.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly as the shuffle whose ``state`` this was, if the source goes on where its source stood."""
        self.generator.set_state(state["generator"])
        self._served, self._next, self._more = state["served"], int(state["next"]), bool(state["more"])
        for name, x in state.items():
            kind, _, site = name.partition(".")
            if kind == "buffer":
                self._buffer.restore(site, x)
            elif kind == "spill":
                self._buffer.spill[site] = x

    def close(self) -> None:
        """End the source, and give the buffer's memory back; no batch comes after this."""
        if close := getattr(self._source, "close", None):
            close()
        self._source, self._buffer, self._served, self._next = iter(()), _Buffer(0), self._served[:0], 0

    def _refill(self) -> None:
        buffer = self._buffer
        buffer.free(self._served)
        n_wanted = buffer.n_places if self._left is None else min(buffer.n_places, self._left)
        self._more = self._more and buffer.fill(self._source, n_wanted)
        if not buffer.n_filled:
            raise StopIteration
        order = torch.randperm(buffer.n_filled, generator=self.generator)
        is_last = not self._more or buffer.n_filled == self._left
        self._served = order if is_last else order[: buffer.n_places // 2 // self.batch * self.batch]
        self._next = 0


class _Buffer:
    """Places for rows, of which the first ``n_filled`` hold one; nothing is allocated after the first rows came."""

    def __init__(self, n_places: int) -> None:
        self.n_places = n_places
        self.n_filled = 0
        self.storage: dict[str, Tensor] = {}
        self.spill: dict[str, Tensor] = {}
        self.after: TextPosition | None = None

    def fill(self, source: Iterator[Rows | Sequences], n_wanted: int) -> bool:
        """Fill so many places; False once the source has ended."""
        while self.n_filled < n_wanted:
            columns: Mapping[str, Tensor]
            if self.spill:
                columns, self.spill = self.spill, {}
            else:
                rows = next(source, None)
                if rows is None:
                    return False
                columns, self.after = rows.columns, rows.after
            self._put(columns, n_wanted)
        return True

    def restore(self, site: str, x: Shaped[Tensor, "B _"]) -> None:
        """Hold these rows of a site."""
        self.storage[site] = x.new_empty(self.n_places, x.shape[1])
        self.storage[site][: len(x)] = x
        self.n_filled = len(x)

    def take(self, places: Int[Tensor, " B"]) -> dict[str, Shaped[Tensor, "B _"]]:
        return {site: storage[places.to(storage.device)] for site, storage in self.storage.items()}

    def free(self, places: Int[Tensor, " B"]) -> None:
        """Empty these places and move rows from the end into them, so that filled places stay in front."""
        n_left = self.n_filled - places.shape[0]
        is_free = torch.zeros(self.n_filled, dtype=torch.bool)
        is_free[places] = True
        holes = is_free[:n_left].nonzero().flatten()
        movers = n_left + (~is_free[n_left:]).nonzero().flatten()
        for storage in self.storage.values():
            storage[holes.to(storage.device)] = storage[movers.to(storage.device)]
        self.n_filled = n_left

    def _put(self, columns: Mapping[str, Tensor], n_wanted: int) -> None:
        n_new = min(next(iter(columns.values())).shape[0], n_wanted - self.n_filled)
        for site, x in columns.items():
            if site not in self.storage:
                self.storage[site] = x.new_empty(self.n_places, x.shape[1])
            self.storage[site][self.n_filled : self.n_filled + n_new] = x[:n_new]
            if n_new < x.shape[0]:
                self.spill[site] = x[n_new:].clone()
        self.n_filled += n_new
