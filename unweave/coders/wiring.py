"""What a coder reads and what it writes: wiring is data, so one architecture file serves them all.

An SAE writes where it reads. A transcoder (Dunefsky et al. 2024, arXiv 2406.11944) writes elsewhere; a skip transcoder
(Paulo et al. 2025, arXiv 2501.18823) adds a linear path from what it reads to what it writes. A crosscoder (Lindsey et
al. 2024) reads and writes several sites at once. Several sites are concatenated along the width.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

RowNorm = Literal["none", "layer_norm", "sqrt_width"]
"""What is done to each row before it is read, and undone in what is written: its mean and spread taken away (Gao et
al. 2024, arXiv 2406.04093), or its norm made the root of its width. Only coders that were read from elsewhere have it:
it cannot be folded into weights."""


class Port(NamedTuple):
    """A site and its width."""

    site: str
    width: int


@dataclass(frozen=True)
class Wiring:
    """The sites that a coder reads and writes, in the order of their columns."""

    reads: tuple[Port, ...]
    writes: tuple[Port, ...]
    skip: bool = False
    """Whether a linear map carries what is read straight to what is written."""
    row_norm: RowNorm = "none"
    """What is done to each row on its own; only where one site is read and written."""

    @staticmethod
    def sae(width: int, site: str = "") -> "Wiring":
        """Reads and writes one site."""
        return Wiring((Port(site, width),), (Port(site, width),))

    @staticmethod
    def transcoder(read: Port, write: Port, *, skip: bool = False) -> "Wiring":
        """Reads one site and writes another."""
        return Wiring((read,), (write,), skip)

    @staticmethod
    def crosscoder(*ports: Port) -> "Wiring":
        """Reads and writes several sites at once."""
        return Wiring(ports, ports)

    @property
    def kind(self) -> str:
        """``sae``, ``crosscoder``, ``transcoder`` or ``skip_transcoder``."""
        if self.writes_what_it_reads:
            return "sae" if len(self.reads) == 1 else "crosscoder"
        return "skip_transcoder" if self.skip else "transcoder"

    @property
    def writes_what_it_reads(self) -> bool:
        return self.reads == self.writes and not self.skip

    @property
    def d_read(self) -> int:
        return sum(port.width for port in self.reads)

    @property
    def d_write(self) -> int:
        return sum(port.width for port in self.writes)

    def normalised(self, x_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Rows as the coder reads them."""
        if self.row_norm == "none":
            return x_BD
        if self.row_norm == "sqrt_width":
            return x_BD * _to_sqrt_width(x_BD)
        mean_B1, spread_B1 = _mean_and_spread(x_BD)
        return (x_BD - mean_B1) / (spread_B1 + 1e-5)

    def denormalised(self, y_BD: Float[Tensor, "B D"], x_BD: Float[Tensor, "B D_read"]) -> Float[Tensor, "B D"]:
        """What is written for rows ``x``, in their units."""
        if self.row_norm == "none":
            return y_BD
        if self.row_norm == "sqrt_width":
            return y_BD / _to_sqrt_width(x_BD)
        mean_B1, spread_B1 = _mean_and_spread(x_BD)
        return y_BD * spread_B1 + mean_B1

    def norms(self, W_dec: Float[Tensor, "L D"]) -> Float[Tensor, " L"]:
        """The size of what each latent writes: the sum over sites of the norms of its rows (Lindsey et al. 2024)."""
        if len(self.writes) == 1:
            return W_dec.norm(dim=1)
        parts = W_dec.split([port.width for port in self.writes], dim=1)
        return torch.stack([part.norm(dim=1) for part in parts]).sum(0)


def _mean_and_spread(x_BD: Float[Tensor, "B D"]) -> tuple[Float[Tensor, "B 1"], Float[Tensor, "B 1"]]:
    """The spread has D - 1 in its denominator, as where these coders come from."""
    return x_BD.mean(dim=1, keepdim=True), x_BD.std(dim=1, keepdim=True)


def _to_sqrt_width(x_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B 1"]:
    return x_BD.shape[1] ** 0.5 / x_BD.norm(dim=1, keepdim=True)
