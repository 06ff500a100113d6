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
        """Count a batch of training codes."""
        fired = latent_sum(codes, (codes.values.detach() != 0).to(codes.values.dtype)) > 0
        self.silent_rows = torch.where(fired, 0, self.silent_rows + codes.n_rows)
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
