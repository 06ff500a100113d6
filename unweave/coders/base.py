"""What every sparse coder is: an encoder and a decoder matrix, ``encode`` for use and ``loss`` for training.

Weights are latent-major: row i of ``W_enc`` is what latent i reads, row i of ``W_dec`` is what it writes. A coder that
writes what it reads may subtract the decoder's bias from its input, so that it explains how a row differs from the
mean row.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from unweave.coders.peers import ALONE, Peers
from unweave.coders.start import start
from unweave.coders.wiring import Wiring
from unweave.errors import UserError
from unweave.kernels.encode import encode
from unweave.kernels.selection import Rule
from unweave.kernels.sparse_decode import sparse_decode
from unweave.types import Codes

DecoderNorm = Literal["unit", "free", "at_most_one"]
BiasStart = Literal["mean", "geometric_median", "zero"]
InputScale = Literal["unit_spread", "unit_square", "sqrt_width", "whiten", "none"]
_OF_THE_OUTPUT = ("b_dec", "W_skip")
"""Parameters whose rows belong to what is written, of which there may be as many as latents."""
PUBLISHED: Any = None
"""Default of a setting that becomes what the architecture's paper has, by ``CoderConfig._fill``."""


@dataclass(frozen=True, kw_only=True)
class CoderConfig:
    """Settings that every architecture has. Where a default is None, it becomes what the architecture's paper has."""

    n_latents: int = 2048
    """Number of latents, often 4 to 32 times the width of the site."""
    decoder_norm: DecoderNorm = PUBLISHED
    """Norm of decoder rows: unit (projected each step), at_most_one, or free (where the penalty counts the norm)."""
    centre: bool = PUBLISHED
    """Whether b_dec is subtracted from the input; a coder that writes elsewhere than it reads never does."""
    input_scale: InputScale = PUBLISHED
    """Scale of rows in training: unit_spread (mean square 1 about the mean), unit_square (about 0), sqrt_width (mean
    norm is the root of the width), whiten (covariance 1), none. It is folded into the weights when training ends."""
    decoder_init_norm: float = PUBLISHED
    """Norm of decoder rows at the start."""
    encoder_init_gain: float = PUBLISHED
    """The encoder starts as the decoder's transpose times this. Default 0.1 where decoder rows start at norm 1, so that
    a reconstruction grows from b_dec instead of first unlearning a random one; else 1."""
    bias_start: BiasStart = PUBLISHED
    """Where b_dec starts: the mean or the geometric median of a first sample of rows, or zero."""
    active_subspace: int = 0
    """Decoder rows start in the span of so many leading principal directions of what is written; 0: anywhere."""

    def __post_init__(self) -> None:
        if self.n_latents < 1:
            raise UserError(f"coder.n_latents must be at least 1, got {self.n_latents}")
        self._fill(decoder_norm="unit", centre=True, input_scale="unit_spread", bias_start="mean")
        self._fill(decoder_init_norm=1.0, encoder_init_gain=0.1)
        for name in ("decoder_init_norm", "encoder_init_gain"):
            if not getattr(self, name) > 0:
                raise UserError(f"coder.{name} must be more than 0, got {getattr(self, name)}")
        if self.active_subspace < 0:
            raise UserError(f"coder.active_subspace must not be negative, got {self.active_subspace}")

    def _fill(self, **published: Any) -> None:
        """Give fields that are None their published values; the first to fill a field wins."""
        for name, value in published.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)


class Moment(NamedTuple):
    """When in a training run a step happens, and which latents are dead by then."""

    progress: float
    """Share of the run that is done, from 0 to 1."""
    dead: Int[Tensor, " n_dead"]
    """Ids of dead latents, ascending. Their number is known without waiting for the device."""
    n_dead_elsewhere: int = 0
    """Dead latents that other processes hold."""

    @property
    def n_dead(self) -> int:
        return self.dead.shape[0] + self.n_dead_elsewhere


class Origin(NamedTuple):
    """Where a finished coder was trained."""

    model: str
    """Name, folder or hub id of the language model."""
    prepend_bos: bool = True
    """Whether every sequence began with the beginning-of-text token."""


class CoderStep(NamedTuple):
    """What one training step computes: named losses whose sum is minimised, and what logging and dead counters read."""

    losses: dict[str, Float[Tensor, ""]]
    codes: Codes
    reconstruction: Float[Tensor, "B D"]


class SparseCoder(nn.Module, ABC):
    """Writes a row as a sparse sum of decoder rows. Subclasses are final and give ``encode`` and ``loss``."""

    Config: ClassVar[type[CoderConfig]]
    sparsity: ClassVar[str] = "k"
    """The setting from which L0 follows: a count, or the coefficient of a penalty."""
    reconstruction_losses: ClassVar[tuple[str, ...]] = ("mse",)
    """Losses that measure what is written against what should be; an objective may weigh them, or put others beside."""
    readers: ClassVar[tuple[str, ...]] = ("W_enc",)
    """Matrices [_, D_read] whose product with a row is in units of activations."""
    in_activation_units: ClassVar[tuple[str, ...]] = ("b_enc",)
    """Other parameters and buffers in units of activations, apart from b_dec."""
    unitless_readers: ClassVar[tuple[str, ...]] = ()
    """Matrices [_, D_read] whose product with a row must not change with the scale of rows, such as a router's."""
    per_latent: ClassVar[tuple[str, ...]] = ("W_enc", "b_enc")
    """Tensors whose row i scales with the activation of latent i. Empty where a latent cannot be rescaled alone."""
    splits_latents: ClassVar[bool] = False
    """Whether its latents can be spread over processes: every sum and choice over latents is made with ``peers``."""
    reads_sequences: ClassVar[bool] = False
    """Whether codes of a row depend on earlier rows of its sequence. Then ``encode``, ``reconstruct`` and the call take
    sequences [N, T, D], and give codes and rows of all N * T of them."""
    trains: ClassVar[bool] = True
    """Whether it can be trained here, and not only be loaded, used and measured."""

    def __init__(self, config: CoderConfig, wiring: Wiring) -> None:
        """Decoder rows are random directions, the encoder is their transpose (Gao et al. 2024), biases are 0."""
        super().__init__()
        # what a transcoder writes lies in another space than what it reads, so b_dec is no centre of its input
        self.config = config if wiring.writes_what_it_reads else replace(config, centre=False)
        self.wiring = wiring
        self.origin: Origin | None = None
        self.peers: Peers = ALONE
        W_dec = config.decoder_init_norm * F.normalize(torch.randn(config.n_latents, wiring.d_write), dim=1)
        self.new_encoder(W_dec)
        self.W_dec = nn.Parameter(W_dec)
        self.b_dec = nn.Parameter(torch.zeros(wiring.d_write))
        self.W_skip = nn.Parameter(torch.zeros(wiring.d_write, wiring.d_read)) if wiring.skip else None

    @property
    def n_latents(self) -> int:
        """Latents that this process has; all of them unless it has peers."""
        return self.config.n_latents // self.peers.n_latent_parts

    @property
    def d_model(self) -> int:
        """Width of what it reads."""
        return self.wiring.d_read

    @property
    def site(self) -> str:
        """The site that it reads; a crosscoder has several, see ``wiring``."""
        if len(self.wiring.reads) != 1:
            raise UserError(f"this coder reads {len(self.wiring.reads)} sites; see coder.wiring.reads")
        return self.wiring.reads[0].site

    def new_encoder(self, W_dec: Float[Tensor, "L D_write"]) -> None:
        """Make the tensors that read, given a new decoder; an architecture that reads in another way makes its own."""
        config, wiring = self.config, self.wiring
        if wiring.d_read == wiring.d_write:
            W_enc = config.encoder_init_gain * W_dec
        else:
            W_enc = config.encoder_init_gain * F.normalize(torch.randn(config.n_latents, wiring.d_read), dim=1)
        self.W_enc = nn.Parameter(W_enc.clone())
        self.b_enc = nn.Parameter(torch.zeros(config.n_latents))

    def extra_repr(self) -> str:
        wired = f"{self.wiring.kind} from width {self.wiring.d_read} to {self.wiring.d_write}"
        return f"{self.n_latents} latents, {wired}, origin={self.origin}"

    @abstractmethod
    def encode(self, x_BD: Float[Tensor, "B D"], /) -> Codes:
        """The active latents of each row, as used after training: a row never depends on the other rows.

        Where the class ``reads_sequences``, it depends on earlier rows of its own sequence, and on no others.
        """

    @abstractmethod
    def loss(self, x_BD: Float[Tensor, "B D_read"], y_BD: Float[Tensor, "B D_write"], moment: Moment) -> CoderStep:
        """One training step's losses for reading ``x`` and writing ``y``, both scaled; an SAE gets ``y = x``."""

    def forward(self, x_BD: Float[Tensor, "B D_read"], /) -> Float[Tensor, "B D_write"]:
        """What the coder writes for each row."""
        return self.reconstruct(self.encode(x_BD), x_BD)

    def decode(self, codes: Codes) -> Float[Tensor, "B D_write"]:
        """The sum of the active decoder rows plus the decoder's bias; neither a skip path nor a row norm is in it."""
        return self.peers.over_latents(sparse_decode(codes, self.W_dec)) + self.b_dec

    def reconstruct(self, codes: Codes, x_BD: Float[Tensor, "B D_read"], /) -> Float[Tensor, "B D_write"]:
        """``decode`` in units of the rows that were read, plus the skip path where the wiring has one."""
        written = self.wiring.denormalised(self.decode(codes), x_BD)
        return written if self.W_skip is None else written + x_BD @ self.W_skip.T

    def active(self, x_BD: Float[Tensor, "B D_read"], rule: Rule, b_enc: Float[Tensor, " L"] | None = None) -> Codes:
        """Codes of the pre-activations that a rule keeps; differentiable where gradients are on."""
        self.check_rows(x_BD)
        b_enc = self.b_enc if b_enc is None else b_enc
        return self.encode_with(self.wiring.normalised(x_BD), self.W_enc, b_enc, rule, self.centre)

    def encode_with(
        self,
        x_BD: Float[Tensor, "B D_read"],
        W_enc: Float[Tensor, "L D_read"],
        b_enc: Float[Tensor, " L"],
        rule: Rule,
        centre: Float[Tensor, " D_read"] | None,
    ) -> Codes:
        """Codes of what given weights find, where the rule is for all processes together."""
        own = self.peers.own_rule(rule, W_enc.shape[0])
        return encode(x_BD, W_enc, b_enc, own, centre=centre, choose=lambda codes: self.peers.choose(codes, rule))

    def check_rows(self, x_BD: Tensor) -> None:
        """Raise ``UserError`` where these are not rows of the width that is read."""
        if x_BD.ndim != 2 or x_BD.shape[1] != self.d_model:
            raise UserError(f"a coder reads rows [B, {self.d_model}], got {list(x_BD.shape)}; flatten sequences first")

    @property
    def centre(self) -> Float[Tensor, " D_read"] | None:
        """What is subtracted from rows before they are read."""
        return self.peers.shared(self.b_dec) if self.config.centre else None

    @torch.no_grad()
    def start_from(self, x_BD: Float[Tensor, "B D_read"], y_BD: Float[Tensor, "B D_write"]) -> None:
        """Set what starts from data, given a first sample of scaled rows."""
        start(self, x_BD, y_BD)

    @torch.no_grad()
    def shift_input(self, offset_D: Float[Tensor, " D_read"]) -> None:
        """From now on treat a row ``x`` as it treated ``x - offset``; only where ``b_dec`` is not its centre."""
        self.b_enc.sub_(self.W_enc @ offset_D)

    @torch.no_grad()
    def settle(self) -> None:
        """Drop what only training needs; folding does this first. Most architectures have no such thing."""

    def has_row_per_latent(self, name: str, tensor: Tensor) -> bool:
        """Whether a parameter or buffer, or what is kept for it, has a row or a number for each latent."""
        return tensor.shape[:1] == (self.n_latents,) and name not in _OF_THE_OUTPUT

    def decoder_norms(self) -> Float[Tensor, " L"]:
        """The size of what each latent writes, for penalties; differentiable."""
        return self.wiring.norms(self.W_dec)


def mean_squared_error(y_hat_BD: Float[Tensor, "B D"], y_BD: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Squared error, summed over the width and averaged over rows."""
    return (y_hat_BD - y_BD).square().sum() / y_BD.shape[0]


def warm_up(progress: float, share: float) -> float:
    """Factor that rises linearly from 0 to 1 over the first ``share`` of a run."""
    return min(1.0, progress / share) if share > 0 else 1.0
