"""What a coder reads and what it writes: wiring is data, so one architecture file serves them all.

An SAE writes where it reads. A transcoder (Dunefsky et al. 2024, arXiv 2406.11944) writes elsewhere; a skip transcoder
(Paulo et al. 2025, arXiv 2501.18823) adds a linear path from what it reads to what it writes. A crosscoder (Lindsey et
al. 2024) reads and writes several sites at once. Several sites are concatenated along the width.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


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

    def norms(self, W_dec: Float[Tensor, "L D"]) -> Float[Tensor, " L"]:
        """The size of what each latent writes: the sum over sites of the norms of its rows (Lindsey et al. 2024)."""
        if len(self.writes) == 1:
            return W_dec.norm(dim=1)
        parts = W_dec.split([port.width for port in self.writes], dim=1)
        return torch.stack([part.norm(dim=1) for part in parts]).sum(0)
