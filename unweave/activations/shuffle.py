"""Mix rows of many documents in one preallocated buffer, so that the rows of a training batch are unrelated."""

from collections.abc import Iterable, Iterator, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.errors import UserError
from unweave.types import Rows


def shuffled(
    rows: Iterable[Rows], n_buffer: int, batch: int, generator: torch.Generator
) -> Iterator[dict[str, Float[Tensor, "B _"]]]:
    """Batches of ``batch`` rows per site in random order; every row comes out exactly once.

    A buffer of ``n_buffer`` rows is filled, then half of it is served at random and the served places are filled anew.
    When the source ends, what is left is served; the last batch may be smaller.
    """
    if n_buffer < 2 * batch:
        raise UserError(f"the shuffle buffer needs at least two batches of rows, got {n_buffer} for batches of {batch}")
    buffer = _Buffer(n_buffer)
    source = iter(rows)
    more = True
    while more or buffer.n_filled:
        more = more and buffer.fill(source)
        if not buffer.n_filled:
            return
        order = torch.randperm(buffer.n_filled, generator=generator)
        served = order[: n_buffer // 2 // batch * batch] if more else order
        for chosen in served.split(batch):
            yield buffer.take(chosen)
        buffer.free(served)
        if not more:
            return


class _Buffer:
    """Places for rows, of which the first ``n_filled`` hold one; nothing is allocated after the first rows came."""

    def __init__(self, n_places: int) -> None:
        self.n_places = n_places
        self.n_filled = 0
        self.storage: dict[str, Tensor] = {}
        self.spill: dict[str, Tensor] = {}

    def fill(self, source: Iterator[Rows]) -> bool:
        """Fill all places; False once the source has ended."""
        while self.n_filled < self.n_places:
            activations: Mapping[str, Tensor]
            if self.spill:
                activations, self.spill = self.spill, {}
            else:
                rows = next(source, None)
                if rows is None:
                    return False
                activations = rows.activations
            self._put(activations)
        return True

    def take(self, places: Int[Tensor, " B"]) -> dict[str, Float[Tensor, "B _"]]:
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

    def _put(self, activations: Mapping[str, Tensor]) -> None:
        n_new = min(next(iter(activations.values())).shape[0], self.n_places - self.n_filled)
        for site, x in activations.items():
            if site not in self.storage:
                self.storage[site] = x.new_empty(self.n_places, x.shape[1])
            self.storage[site][self.n_filled : self.n_filled + n_new] = x[:n_new]
            if n_new < x.shape[0]:
                self.spill[site] = x[n_new:].clone()
        self.n_filled += n_new
