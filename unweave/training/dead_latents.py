"""Count how long each latent has been silent; after a window without firing it is dead (Gao et al. 2024, A.2)."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from unweave.coders.peers import ALONE, Peers
from unweave.kernels.latent_values import latent_sum
from unweave.types import Codes

_LOOK_EVERY = 10
"""Steps between two looks at which latents are dead; each look makes a GPU tell how many there are."""


class DeadLatents:
    """Rows seen since each latent last fired."""

    def __init__(self, n_latents: int, window: int, device: torch.device, peers: Peers = ALONE) -> None:
        """A latent is dead after ``window`` rows in which it never fired, in no process."""
        self.window = window
        self.n_elsewhere = 0
        """Latents of other processes that were dead at the last look."""
        self._peers = peers
        self.silent_rows = torch.zeros(n_latents, dtype=torch.int64, device=device)
        self._ids = torch.empty(0, dtype=torch.int64, device=device)
        self._steps = 0

    def update(self, codes: Codes) -> None:
        """Count the training codes of a step."""
        self.count(fired_in(codes), codes.n_rows)

    def count(self, fired_L: Bool[Tensor, " L"], n_rows: int) -> None:
        """Count a step of so many rows in which these latents fired."""
        n_rows *= self._peers.n_row_parts
        self.silent_rows = torch.where(self._peers.any_of_rows(fired_L), 0, self.silent_rows + n_rows)
        self._steps += 1
        if self._steps % _LOOK_EVERY == 0:
            self.look()

    def look(self) -> Int[Tensor, " n_dead"]:
        """Find the ids of dead latents now."""
        self._set_dead(self.mask)
        return self._ids

    def revive(self, latents: Int[Tensor, " n"]) -> None:
        """Count latents that got new weights as if they had just fired."""
        self.silent_rows[latents] = 0
        self.look()

    def state(self) -> dict[str, Tensor]:
        """Everything that it knows."""
        dead = torch.zeros_like(self.mask).index_fill_(0, self._ids, 1)
        return {"silent_rows": self.silent_rows, "dead": dead, "steps": torch.tensor(self._steps)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what ``state`` gave."""
        self.silent_rows = state["silent_rows"].to(self.silent_rows, copy=True)
        self._set_dead(state["dead"].to(self.silent_rows.device))
        self._steps = int(state["steps"])

    @property
    def ids(self) -> Int[Tensor, " n_dead"]:
        """Ids of the latents that were dead at the last look, a few steps ago at most."""
        return self._ids

    @property
    def mask(self) -> Bool[Tensor, " L"]:
        return self.silent_rows >= self.window

    @property
    def share(self) -> float:
        """Share of all latents that are dead."""
        return self._peers.over_latents(self.mask.double().mean()).item() / self._peers.n_latent_parts

    def _set_dead(self, dead: Bool[Tensor, " L"]) -> None:
        self._ids = dead.nonzero().flatten()
        self.n_elsewhere = self._peers.total_latents(len(self._ids)) - len(self._ids)


def fired_in(codes: Codes) -> Bool[Tensor, " L"]:
    """Which latents fired in any row."""
    return latent_sum(codes, (codes.values.detach() != 0).to(codes.values.dtype)) > 0
