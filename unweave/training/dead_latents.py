"""Count how long each latent has been silent; after a window without firing it is dead (Gao et al. 2024, A.2)."""

import torch
from jaxtyping import Bool
from torch import Tensor

from unweave.types import Codes


class DeadLatents:
    """Rows seen since each latent last fired."""

    def __init__(self, n_latents: int, window: int, device: torch.device) -> None:
        """A latent is dead after ``window`` rows in which it never fired."""
        self.window = window
        self.silent_rows = torch.zeros(n_latents, dtype=torch.int64, device=device)

    def update(self, codes: Codes) -> None:
        self.silent_rows += codes.n_rows
        self.silent_rows[codes.latent_ids] = 0

    @property
    def mask(self) -> Bool[Tensor, " L"]:
        return self.silent_rows >= self.window

    @property
    def share(self) -> float:
        """Share of all latents that are dead."""
        return self.mask.double().mean().item()
