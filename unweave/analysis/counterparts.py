"""Each latent's counterpart in another coder: its partner in the one-to-one matching, and the nearest of all.

The best cosine of a latent is the largest absolute cosine of its decoder row with any of the other coder's. What it
would be by chance is told by the same after a random rotation of the other decoder, which keeps the structure of both.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.analysis.cosines import Neighbours, Pairs, nearest, random_nearest
from unweave.analysis.matching import match, random_rotation


class Counterparts(NamedTuple):
    """Latents of two coders beside each other; cosines have their sign."""

    matching: Pairs
    """One to one, with the largest sum of absolute cosines."""
    forth: Neighbours
    """The nearest latent of the second coder to each of the first, [L, 1]."""
    back: Neighbours
    """The nearest latent of the first coder to each of the second, [M, 1]."""
    rotated_L: Float[Tensor, " L"]
    """Best absolute cosine of each latent of the first coder, with the second one turned at random."""

    def figures(self, width: int) -> dict[str, float]:
        """Figures of ``matching.py`` and ``swept.py`` that follow, for decoder rows of a width, with one rotation."""
        forth, back, matched = (part.abs() for part in (self.forth.cosines, self.back.cosines, self.matching.strength))
        return {
            "mmcs": forth.mean().item(),
            "mmcs_back": back.mean().item(),
            "mmcs_of_random": random_nearest(len(back), width),
            "mmcs_rotated": self.rotated_L.mean().item(),
            "mcc_of_coders": matched.mean().item(),
            "same_number_share": (self.matching.first == self.matching.second).double().mean().item(),
        }


@torch.no_grad()
def counterparts(W_LD: Float[Tensor, "L D"], other_MD: Float[Tensor, "M _"], *, seed: int = 0) -> Counterparts:
    """The counterparts of all latents, a block of cosines at a time.

    Raises ``UserError`` for decoder rows of different widths.
    """
    matching = match(W_LD, other_MD)
    forth, back = nearest(W_LD, other_MD, signed=False), nearest(other_MD, W_LD, signed=False)
    rotation = random_rotation(W_LD.shape[1], torch.Generator().manual_seed(seed)).to(other_MD)
    rotated = nearest(W_LD, other_MD @ rotation, signed=False).cosines.abs().flatten()
    return Counterparts(matching, forth, back, rotated)
