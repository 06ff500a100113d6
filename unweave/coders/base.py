"""What every sparse coder is: an encoder and a decoder matrix, ``encode`` for use and ``loss`` for training.

Weights are latent-major: row i of ``W_enc`` is what latent i reads, row i of ``W_dec`` is what it writes. The decoder's
bias is subtracted from the input, so a coder explains how a row differs from the mean row.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unweave.errors import UserError
from unweave.kernels.sparse_decode import sparse_decode
from unweave.kernels.sparse_encode import active_preactivations
from unweave.types import Codes


@dataclass(frozen=True, kw_only=True)
class CoderConfig:
    """Settings that every architecture has."""

    n_latents: int = 2048
    """Number of latents, often 4 to 32 times the width of the site."""

    def __post_init__(self) -> None:
        if self.n_latents < 1:
            raise UserError(f"coder.n_latents must be at least 1, got {self.n_latents}")


class Moment(NamedTuple):
    """When in a training run a step happens, and which latents are dead by then."""

    progress: float
    """Share of the run that is done, from 0 to 1."""
    dead_L: Bool[Tensor, " L"]


class Origin(NamedTuple):
    """Where a finished coder was trained."""

    model: str
    """Name, folder or hub id of the language model."""
    site: str


class CoderStep(NamedTuple):
    """What one training step computes: named losses whose sum is minimised, and what logging and dead counters read."""

    losses: dict[str, Float[Tensor, ""]]
    codes: Codes
    reconstruction: Float[Tensor, "B D"]


class SparseCoder(nn.Module, ABC):
    """Writes a row as a sparse sum of decoder rows. Subclasses are final and give ``encode`` and ``loss``."""

    Config: ClassVar[type[CoderConfig]]
    scales_with_input: ClassVar[tuple[str, ...]] = ("b_enc", "b_dec")
    """Parameters and buffers in units of the input; they are divided by the training scale when a coder is folded."""

    def __init__(self, config: CoderConfig, d_model: int) -> None:
        """Decoder rows are random unit vectors, the encoder is their transpose (Gao et al. 2024), biases are 0."""
        super().__init__()
        self.config = config
        self.origin: Origin | None = None
        W_dec = F.normalize(torch.randn(config.n_latents, d_model), dim=1)
        self.W_enc = nn.Parameter(W_dec.clone())
        self.b_enc = nn.Parameter(torch.zeros(config.n_latents))
        self.W_dec = nn.Parameter(W_dec)
        self.b_dec = nn.Parameter(torch.zeros(d_model))

    def forward(self, x_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """The reconstruction of each row."""
        return self.decode(self.encode(x_BD))

    def extra_repr(self) -> str:
        return f"{self.n_latents} latents on width {self.d_model}, origin={self.origin}"

    @property
    def n_latents(self) -> int:
        return self.W_dec.shape[0]

    @property
    def d_model(self) -> int:
        return self.W_dec.shape[1]

    @abstractmethod
    def encode(self, x_BD: Float[Tensor, "B D"]) -> Codes:
        """The active latents of each row, as used after training: a row never depends on the other rows."""

    @abstractmethod
    def loss(self, x_BD: Float[Tensor, "B D"], moment: Moment) -> CoderStep:
        """One training step's losses on a batch of scaled rows."""

    def decode(self, codes: Codes) -> Float[Tensor, "B D"]:
        """Rows from codes: the sum of the active decoder rows plus the decoder's bias."""
        return sparse_decode(codes, self.W_dec) + self.b_dec

    @torch.no_grad()
    def preactivations(self, x_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B L"]:
        """The one dense product: ``(x - b_dec) @ W_enc.T + b_enc``, outside autograd."""
        if x_BD.ndim != 2 or x_BD.shape[1] != self.d_model:
            raise UserError(f"a coder reads rows [B, {self.d_model}], got {list(x_BD.shape)}; flatten sequences first")
        return torch.addmm(self.b_enc, x_BD - self.b_dec, self.W_enc.T)

    def with_gradient(self, codes: Codes, x_BD: Float[Tensor, "B D"]) -> Codes:
        """Codes selected from ``preactivations``, now differentiable in the encoder.

        ``b_dec`` learns from the decoder alone; its share of the encoder's gradient is left out.
        """
        values = active_preactivations(codes, x_BD - self.b_dec.detach(), self.W_enc, self.b_enc)
        return codes.with_values(values)

    @torch.no_grad()
    def start_from(self, x_BD: Float[Tensor, "B D"]) -> None:
        """Data-dependent start: ``b_dec`` is the mean of a first sample of scaled rows."""
        self.b_dec.copy_(x_BD.mean(0))

    @torch.no_grad()
    def fold_input_scale(self, scale: float) -> None:
        """Turn a coder trained on ``scale * x`` into one that reads and writes x itself, exactly.

        Both directions keep their weights, so decoder rows stay unit vectors and activations are in units of x.
        """
        for name in self.scales_with_input:
            getattr(self, name).div_(scale)
