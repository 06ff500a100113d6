"""Temporal: what earlier positions predict is taken away, what is novel is encoded (Lubana et al. 2025, 2511.01836).

A sequence x_1 ... x_T starts with r = x - b_dec and passes n_layers layers of causal attention over latents. In each,

    z_t = relu(r_t W_enc^T),   keys and values are of 0, z_1, ..., z_(t-1),   the query is of z_t
    p_t = relu(attention) W_dec,   c_t = (p_t . r_t) / (|p_t| + epsilon)^2,   r_t <- r_t - c_t p_t

so each layer predicts a direction, and as much of the row as lies along it is predicted. The codes are the novel
latents f_t = relu(r_t W_enc^T), of which ``k`` keeps the largest. y_hat = f W_dec + b_dec + sum over layers of c p;
``decode`` is without that sum, which is of no latents that are kept, as in SAELens.

The paper has W_enc = W_dec / (4 D) on rows that were scaled by a number s. Since z does not change, dividing W_dec,
b_dec and epsilon by s, and multiplying W_enc by it, is exact; so ours are the rows of the model, and W_enc is a matrix
of its own. The context is the sequence as it is packed, special tokens and earlier documents included.

It is read, not trained: training shuffles rows, and this needs whole sequences.
"""

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unweave.coders.base import CoderConfig, CoderStep, Moment, SparseCoder
from unweave.coders.wiring import Wiring
from unweave.errors import UserError
from unweave.kernels.selection import Above, TopKOfRow
from unweave.types import Codes


@dataclass(frozen=True, kw_only=True)
class TemporalConfig(CoderConfig):
    """Settings of a temporal coder."""

    k: int = 192
    """Most novel latents of a row; 0: all that are positive."""
    n_layers: int = 1
    """Layers of attention, each of which predicts what the ones before have left."""
    n_heads: int = 4
    """Heads of attention."""
    d_key: int = 128
    """Width of keys and queries, all heads together."""
    epsilon: float = 1e-6
    """Is added to the norm of what is predicted; in units of rows."""

    def __post_init__(self) -> None:
        self._fill(decoder_norm="free")
        super().__post_init__()
        if not 0 <= self.k <= self.n_latents:
            raise UserError(f"coder.k needs 0 <= k <= n_latents, got k={self.k} with n_latents={self.n_latents}")
        if min(self.n_layers, self.n_heads, self.d_key) < 1:
            got = f"{self.n_layers}, {self.n_heads} and {self.d_key}"
            raise UserError(f"coder.n_layers, n_heads and d_key must be at least 1, got {got}")
        if not 0 < self.epsilon < float("inf"):
            raise UserError(f"coder.epsilon must be a number more than 0, got {self.epsilon}")
        if self.n_latents % self.n_heads or self.d_key % self.n_heads:
            widths = f"n_latents={self.n_latents} and d_key={self.d_key}"
            raise UserError(f"coder.n_heads={self.n_heads} must divide {widths}")


@final
class Temporal(SparseCoder):
    """See the module's docstring for the maths."""

    Config = TemporalConfig
    config: TemporalConfig
    reads_sequences = True
    trains = False
    in_activation_units = ()
    per_latent = ()  # attention depends on all of them together

    def __init__(self, config: TemporalConfig, wiring: Wiring) -> None:
        if wiring.kind != "sae":
            raise UserError(f"temporal needs one site that it reads and writes, got a {wiring.kind}")
        super().__init__(config, wiring)
        self.layers = nn.ModuleList(_Attention(config) for _ in range(config.n_layers))

    def new_encoder(self, W_dec: Float[Tensor, "L D_write"]) -> None:
        """Like other encoders, without a bias."""
        self.W_enc = nn.Parameter(self.config.encoder_init_gain * W_dec)

    @torch.no_grad()
    def encode(self, x_NTD: Float[Tensor, "N T D"]) -> Codes:
        """The novel latents of all rows of the sequences, one sequence after the other."""
        return self._novel(self._predict(x_NTD)[1])

    def reconstruct(self, codes: Codes, x_NTD: Float[Tensor, "N T D"]) -> Float[Tensor, "B D"]:
        """``decode`` and what is predicted, for all rows of the sequences, in their units."""
        return self._written(codes, self._predict(x_NTD)[0], x_NTD)

    def forward(self, x_NTD: Float[Tensor, "N T D"]) -> Float[Tensor, "B D"]:
        """What the coder writes for all rows of the sequences."""
        predicted_BD, left_BD = self._predict(x_NTD)
        return self._written(self._novel(left_BD), predicted_BD, x_NTD)

    def loss(self, x_BD: Float[Tensor, "B D_read"], y_BD: Float[Tensor, "B D_write"], moment: Moment) -> CoderStep:
        """Raises ``UserError``."""
        raise UserError("coders of type temporal are not trained: rows are shuffled, and they need whole sequences")

    def _predict(self, x_NTD: Float[Tensor, "N T D"]) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        """What is predicted of each row, and what is left of it."""
        if x_NTD.ndim != 3 or x_NTD.shape[2] != self.d_model:
            raise UserError(f"temporal coders read sequences [N, T, {self.d_model}], got {list(x_NTD.shape)}")
        rows_BD = self.wiring.normalised(x_NTD.flatten(0, 1))
        centred_NTD = (rows_BD if self.centre is None else rows_BD - self.centre).view_as(x_NTD)
        predicted_NTD = torch.zeros_like(centred_NTD)
        for layer in self.layers:
            left_NTD = centred_NTD - predicted_NTD
            direction_NTD = layer(F.relu(left_NTD @ self.W_enc.T)) @ self.W_dec
            square_NT1 = (direction_NTD.norm(dim=-1, keepdim=True) + self.config.epsilon).square()
            along_NT1 = (direction_NTD * left_NTD).sum(-1, keepdim=True)
            predicted_NTD = predicted_NTD + along_NT1 / square_NT1 * direction_NTD
        return predicted_NTD.flatten(0, 1), (centred_NTD - predicted_NTD).flatten(0, 1)

    def _novel(self, left_BD: Float[Tensor, "B D"]) -> Codes:
        rule = TopKOfRow(self.config.k) if self.config.k else Above(0.0)
        return self.encode_with(left_BD, self.W_enc, left_BD.new_zeros(self.n_latents), rule, None)

    def _written(
        self, codes: Codes, predicted_BD: Float[Tensor, "B D"], x_NTD: Float[Tensor, "N T D"]
    ) -> Float[Tensor, "B D"]:
        return self.wiring.denormalised(self.decode(codes) + predicted_BD, x_NTD.flatten(0, 1))


class _Attention(nn.Module):
    """Attention of latents to the latents of earlier positions."""

    def __init__(self, config: TemporalConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.query = nn.Linear(config.n_latents, config.d_key)
        self.key = nn.Linear(config.n_latents, config.d_key)
        self.value = nn.Linear(config.n_latents, config.n_latents)
        self.out = nn.Linear(config.n_latents, config.n_latents)

    def forward(self, z_NTL: Float[Tensor, "N T L"]) -> Float[Tensor, "N T L"]:
        earlier_NTL = F.pad(z_NTL[:, :-1], (0, 0, 1, 0))
        query, key = self._heads(self.query(z_NTL)), self._heads(self.key(earlier_NTL))
        mixed = F.scaled_dot_product_attention(query, key, self._heads(self.value(earlier_NTL)), is_causal=True)
        return F.relu(self.out(mixed.transpose(1, 2).flatten(2)))

    def _heads(self, x_NTE: Float[Tensor, "N T _"]) -> Float[Tensor, "N H T _"]:
        return x_NTE.unflatten(2, (self.n_heads, -1)).transpose(1, 2)
