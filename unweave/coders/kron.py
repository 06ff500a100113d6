"""KronSAE: a latent is active when two small latents both are (Kurochkin et al. 2025, arXiv 2505.22255).

Each of h heads reads p = relu((x - b_dec) W_p^T + b_p), a numbers, and q = relu((x - b_dec) W_q^T + b_q), b numbers.
Latent (head, i, j) is z = mAND(p_i, q_j) = sqrt(p_i q_j) in its head, with the id (head * a + i) * b + j. So an encoder
of h (a + b) rows serves n_latents = h a b. f keeps the k largest positive entries of z in each row, y_hat = f W_dec +
b_dec. Loss: |y - y_hat|^2 summed over D and averaged over B, plus AuxK for dead latents.

Where the rows read and written have one width, latent (head, i, j) starts to write the direction of W_p row i plus W_q
row j of its head, as in the paper's code. The root is steep near 0: dz/dp = sqrt(q / p) / 2 is taken as 10 where it is
more, in place of the paper's small number under the root, which would make silent latents positive.

The largest k entries of z lie in the k heads whose largest entry, sqrt(max p * max q), is largest, so only these heads'
products are computed.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from unweave.coders.base import CoderStep, Moment, SparseCoder, mean_squared_error
from unweave.coders.dead_loss import unexplained
from unweave.coders.k_schedule import FallingKConfig, whole_k_at
from unweave.coders.wiring import Wiring
from unweave.errors import UserError
from unweave.kernels.latent_values import latent_sum
from unweave.kernels.segment_sum import segment_sum
from unweave.kernels.selection import TopKOfRow, select
from unweave.kernels.sparse_decode import sparse_decode
from unweave.types import Codes

MAX_SLOPE = 10.0
"""The largest derivative of the root that training uses."""


@dataclass(frozen=True, kw_only=True)
class KronConfig(FallingKConfig):
    """Settings of a KronSAE."""

    k: int = 32
    """Active latents per row."""
    n_p: int = 4
    """Numbers p of each head (the paper's m); n_latents is a multiple of n_p * n_q."""
    n_q: int = 4
    """Numbers q of each head (the paper's n)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_p < 1 or self.n_q < 1:
            raise UserError(f"coder.n_p and coder.n_q must be at least 1, got {self.n_p} and {self.n_q}")
        if self.n_latents % (self.n_p * self.n_q):
            raise UserError(
                f"coder.n_latents must be a multiple of n_p * n_q = {self.n_p * self.n_q}, got {self.n_latents}"
            )

    @property
    def n_heads(self) -> int:
        return self.n_latents // (self.n_p * self.n_q)


class Halves(NamedTuple):
    """What the small latents of all heads read, before the relu and without gradient."""

    p: Float[Tensor, "B heads*n_p"]
    q: Float[Tensor, "B heads*n_q"]


@final
class Kron(SparseCoder):
    """See the module's docstring for the maths."""

    Config = KronConfig
    config: KronConfig
    readers = ("W_p", "W_q")
    in_activation_units = ("b_p", "b_q")
    per_latent = ()  # latents of a head share what they read
    W_p: nn.Parameter
    b_p: nn.Parameter
    W_q: nn.Parameter
    b_q: nn.Parameter

    def __init__(self, config: KronConfig, wiring: Wiring) -> None:
        super().__init__(config, wiring)
        if wiring.d_read == wiring.d_write:
            p, q = (W.detach().unflatten(0, (config.n_heads, -1)) for W in (self.W_p, self.W_q))
            along = (p[:, :, None] + q[:, None, :]).flatten(0, 2)
            with torch.no_grad():
                self.W_dec.copy_(config.decoder_init_norm * F.normalize(along, dim=1))

    def new_encoder(self, W_dec: Float[Tensor, "L D_write"]) -> None:
        config, d_read = self.config, self.wiring.d_read
        assert isinstance(config, KronConfig)
        for name, n in {"p": config.n_heads * config.n_p, "q": config.n_heads * config.n_q}.items():
            rows = config.encoder_init_gain * F.normalize(torch.randn(n, d_read), dim=1)
            self.register_parameter(f"W_{name}", nn.Parameter(rows))
            self.register_parameter(f"b_{name}", nn.Parameter(torch.zeros(n)))

    @torch.no_grad()
    def encode(self, x_BD: Float[Tensor, "B D"]) -> Codes:
        return self._largest(self._halves(self._centred(x_BD, self.centre)), self.config.k)

    def loss(self, x_BD: Float[Tensor, "B D_read"], y_BD: Float[Tensor, "B D_write"], moment: Moment) -> CoderStep:
        centred_BD = self._centred(x_BD, self.centre)
        halves = self._halves(centred_BD)
        codes = self._both(centred_BD, halves, self._largest(halves, whole_k_at(self.config, moment.progress)))
        y_hat_BD = self.reconstruct(codes, x_BD)
        losses = {"mse": mean_squared_error(y_hat_BD, y_BD)} | self._aux_losses(x_BD, y_BD, y_hat_BD, moment.dead)
        return CoderStep(losses, codes, y_hat_BD)

    @torch.no_grad()
    def shift_input(self, offset_D: Float[Tensor, " D_read"]) -> None:
        self.b_p.sub_(self.W_p @ offset_D)
        self.b_q.sub_(self.W_q @ offset_D)

    def _centred(self, x_BD: Float[Tensor, "B D"], centre: Tensor | None) -> Float[Tensor, "B D"]:
        self.check_rows(x_BD)
        return x_BD if centre is None else x_BD - centre

    @torch.no_grad()
    def _halves(self, centred_BD: Float[Tensor, "B D"]) -> Halves:
        return Halves(F.linear(centred_BD, self.W_p, self.b_p), F.linear(centred_BD, self.W_q, self.b_q))

    @torch.no_grad()
    def _largest(self, halves: Halves, k: int) -> Codes:
        """The k largest latents of each row, without gradient."""
        config = self.config
        p_BHI, q_BHJ = (torch.relu(half).unflatten(1, (config.n_heads, -1)) for half in halves)
        bounds_BH = p_BHI.amax(2) * q_BHJ.amax(2)
        n = min(k, config.n_heads)
        heads_Bn = bounds_BH.topk(n, dim=1).indices.sort(1).values
        p_BnI = p_BHI.take_along_dim(heads_Bn[:, :, None], dim=1)
        q_BnJ = q_BHJ.take_along_dim(heads_Bn[:, :, None], dim=1)
        z = (p_BnI[..., None] * q_BnJ[:, :, None]).sqrt().flatten(1)
        found = select(z, TopKOfRow(k))
        per_head = config.n_p * config.n_q
        heads = heads_Bn[found.row_ids, found.latent_ids // per_head]
        latent_ids = heads * per_head + found.latent_ids % per_head
        return Codes(found.values, latent_ids, found.row_offsets, config.n_latents)

    def _both(
        self, centred_BD: Tensor, halves: Halves, codes: Codes, latent_ids: Int[Tensor, " E"] | None = None
    ) -> Codes:
        """Codes with a gradient to both halves of each entry; ``latent_ids`` stand for their own."""
        p_ids, q_ids = self._parts(codes.latent_ids if latent_ids is None else latent_ids)
        p = _read_at(codes.row_ids, p_ids, halves.p, centred_BD, self.W_p, self.b_p)
        q = _read_at(codes.row_ids, q_ids, halves.q, centred_BD, self.W_q, self.b_q)
        return codes.with_values(_Root.apply(p, q, codes.values))

    def _parts(self, latent_ids: Int[Tensor, " n"]) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """Which rows of ``W_p`` and of ``W_q`` these latents join."""
        n_p, n_q = self.config.n_p, self.config.n_q
        return latent_ids // n_q, latent_ids // (n_p * n_q) * n_q + latent_ids % n_q

    def _aux_losses(
        self, x_BD: Tensor, y_BD: Tensor, y_hat_BD: Tensor, dead: Int[Tensor, " n_dead"]
    ) -> dict[str, Float[Tensor, ""]]:
        config = self.config
        if config.aux_coefficient == 0 or dead.shape[0] == 0:
            return {}
        centred_BD = self._centred(x_BD, None if self.centre is None else self.centre.detach())
        halves = self._halves(centred_BD)
        with torch.no_grad():
            p_ids, q_ids = self._parts(dead)
            z = (torch.relu(halves.p[:, p_ids]) * torch.relu(halves.q[:, q_ids])).sqrt()
            codes = select(z, TopKOfRow(min(config.k_aux, dead.shape[0])))
        codes = self._both(centred_BD, halves, codes, dead[codes.latent_ids])
        return {"aux": config.aux_coefficient * unexplained(codes, self.W_dec[dead], y_BD, y_hat_BD, self.peers)}


def _read_at(
    rows: Int[Tensor, " E"], ids: Int[Tensor, " E"], half_BN: Tensor, centred_BD: Tensor, W: Tensor, b: Tensor
) -> Float[Tensor, " E"]:
    """What small latents read at entries, several of which may share one; differentiable at the cost of the entries."""
    keys, entries = torch.unique(rows * W.shape[0] + ids, return_inverse=True)
    row_ids, ids = keys // W.shape[0], keys % W.shape[0]
    offsets = F.pad(torch.bincount(row_ids, minlength=half_BN.shape[0]).cumsum(0), (1, 0))
    codes = Codes(half_BN[row_ids, ids], ids, offsets, W.shape[0], {"row_ids": row_ids})
    return _Read.apply(codes.values, centred_BD, W, b, codes).index_select(0, entries)


class _Read(torch.autograd.Function):
    """Products of rows and small latents, given with their values."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, centred_BD: Tensor, W: Tensor, b: Tensor, codes: Codes) -> Tensor:
        ctx.codes = codes
        ctx.save_for_backward(centred_BD, W)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        centred_BD, W = ctx.saved_tensors
        codes: Codes = ctx.codes
        grad_centred = sparse_decode(codes.with_values(grads[0]), W) if ctx.needs_input_grad[1] else None
        return None, grad_centred, segment_sum(codes, grads[0], centred_BD), latent_sum(codes, grads[0]), None


class _Root(torch.autograd.Function):
    """``z = sqrt(p q)``, given with its value, where both are positive; its derivatives are at most ``MAX_SLOPE``."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, q: Tensor, z: Tensor) -> Tensor:
        ctx.save_for_backward(p, q, z)
        return z.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        p, q, z = ctx.saved_tensors
        slope_p = torch.where(z > 0, z / (2.0 * p), 0.0).clamp(max=MAX_SLOPE)
        slope_q = torch.where(z > 0, z / (2.0 * q), 0.0).clamp(max=MAX_SLOPE)
        return grads[0] * slope_p, grads[0] * slope_q, None
