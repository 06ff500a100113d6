"""Count how long each latent has been silent; after a window without firing it is dead (Gao et al. 2024, A.2)."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from unweave.kernels.latent_values import latent_sum
from unweave.types import Codes

_LOOK_EVERY = 10
"""Steps between two looks at which latents are dead; each look makes a GPU tell how many there are."""


class DeadLatents:
    """Rows seen since each latent last fired."""

    def __init__(self, n_latents: int, window: int, device: torch.device) -> None:
        """A latent is dead after ``window`` rows in which it never fired."""
        self.window = window
        self.silent_rows = torch.zeros(n_latents, dtype=torch.int64, device=device)
        self._ids = torch.empty(0, dtype=torch.int64, device=device)
        self._steps = 0

    def update(self, codes: Codes) -> None:
        """Count the training codes of a step."""
        self.count(fired_in(codes), codes.n_rows)

    def count(self, fired_L: Bool[Tensor, " L"], n_rows: int) -> None:
        """Count a step of so many rows in which these latents fired."""
        self.silent_rows = torch.where(fired_L, 0, self.silent_rows + n_rows)
        self._steps += 1
        if self._steps % _LOOK_EVERY == 0:
            self.look()

    def look(self) -> Int[Tensor, " n_dead"]:
        """Find the ids of dead latents now."""
        self._ids = self.mask.nonzero().flatten()
        return self._ids

    def revive(self, latents: Int[Tensor, " n"]) -> None:
        """Count latents that got new weights as if they had just fired."""
        self.silent_rows[latents] = 0
        self.look()

    def state(self) -> dict[str, Tensor]:
        """Everything that it knows."""
        return {"silent_rows": self.silent_rows, "ids": self._ids, "steps": torch.tensor(self._steps)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what ``state`` gave."""
        self.silent_rows = state["silent_rows"].to(self.silent_rows, copy=True)
        self._ids = state["ids"].to(self._ids, copy=True)
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
        return self.mask.double().mean().item()


def fired_in(codes: Codes) -> Bool[Tensor, " L"]:
    """Which latents fired in any row."""
    return latent_sum(codes, (codes.values.detach() != 0).to(codes.values.dtype)) > 0
