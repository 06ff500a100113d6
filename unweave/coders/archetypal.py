"""RA-SAE: decoder rows are mixtures of data points, give or take a little (Fel et al. 2025, arXiv 2502.12892).

W_dec = exp(s) (W C + Lambda): the candidates C, fixed, are centroids that k-means finds in a first sample of rows less
b_dec; each row of W is non-negative with sum 1, so W C lies in their convex hull; each row of Lambda has a norm of at
most ``delta``; s is one number for all. W, Lambda and s are trained. Each step starts by putting W and Lambda back
within bounds, as the authors' code does: negative weights become 0, rows are divided by their sum, or shortened.

The encoder is that of TopK: with h = (x - b_dec) W_enc^T + b_enc, f keeps the k largest positive entries of h in each
row and y_hat = f W_dec + b_dec. Loss: |y - y_hat|^2 summed over D and averaged over B, plus AuxK for dead latents.

Latents start at one candidate each, the same in every run on the same sample, which arXiv 2606.02061 holds to be what
makes the dictionaries of different runs alike. The authors' candidates are not centred and there is no b_dec; that is
``bias_start="zero"``, where their common mean is in every decoder row. When training ends only W_dec is kept.
"""

from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unweave.coders.base import PUBLISHED, CoderStep, Moment, SparseCoder, mean_squared_error
from unweave.coders.dead_loss import aux_losses
from unweave.coders.k_schedule import FallingKConfig, whole_k_at
from unweave.coders.wiring import Wiring
from unweave.errors import UserError
from unweave.kernels.selection import TopKOfRow
from unweave.kernels.sparse_decode import sparse_decode
from unweave.types import Codes

_TRAINED = ("mixing", "relaxation", "log_scale")


@dataclass(frozen=True, kw_only=True)
class ArchetypalConfig(FallingKConfig):
    """Settings of an archetypal coder."""

    k: int = 32
    """Active latents per row."""
    n_candidates: int = PUBLISHED
    """Candidates for archetypes, at most the rows of the first sample. Default: n_latents."""
    delta: float = 0.1
    """How far a decoder row may lie from the candidates' convex hull, in units of the scaled rows."""
    iterations: int = 10
    """Rounds of k-means that find the candidates."""

    def __post_init__(self) -> None:
        self._fill(decoder_norm="free", encoder_init_gain=1.0, n_candidates=self.n_latents)
        super().__post_init__()
        if self.decoder_norm != "free":
            raise UserError(f'archetypal needs coder.decoder_norm="free", got {self.decoder_norm!r}; delta bounds it')
        if self.decoder_init_norm not in (None, 1.0) or self.active_subspace:
            raise UserError("coder.decoder_init_norm and active_subspace have no effect: decoder rows start at data")
        if self.n_candidates < 1:
            raise UserError(f"coder.n_candidates must be at least 1, got {self.n_candidates}")
        if self.delta < 0 or self.iterations < 0:
            raise UserError(f"coder.delta and iterations must not be negative, got {self.delta} and {self.iterations}")


@final
class Archetypal(SparseCoder):
    """See the module's docstring for the maths."""

    Config = ArchetypalConfig
    config: ArchetypalConfig
    per_latent = ()  # rescaling one latent would change which are the largest
    mixing: nn.Parameter | None
    """W [L, N], while the coder is in training, as are the next three."""
    relaxation: nn.Parameter | None
    """Lambda [L, D]."""
    log_scale: nn.Parameter | None
    """s."""
    candidates: Tensor | None
    """C [N, D]."""

    def __init__(self, config: ArchetypalConfig, wiring: Wiring) -> None:
        super().__init__(config, wiring)
        for name in _TRAINED:
            self.register_parameter(name, None)
        self.register_buffer("candidates", None)

    @torch.no_grad()
    def encode(self, x_BD: Float[Tensor, "B D"]) -> Codes:
        return self.active(x_BD, TopKOfRow(self.config.k))

    def loss(self, x_BD: Float[Tensor, "B D_read"], y_BD: Float[Tensor, "B D_write"], moment: Moment) -> CoderStep:
        W_dec = self.compose()
        codes = self.active(x_BD, TopKOfRow(whole_k_at(self.config, moment.progress)))
        y_hat_BD = sparse_decode(codes, W_dec) + self.b_dec
        if self.W_skip is not None:
            y_hat_BD = y_hat_BD + x_BD @ self.W_skip.T
        losses = {"mse": mean_squared_error(y_hat_BD, y_BD)}
        losses |= aux_losses(self, x_BD, y_BD, y_hat_BD, moment, W_dec=W_dec)
        return CoderStep(losses, codes, y_hat_BD)

    @torch.no_grad()
    def start_from(self, x_BD: Float[Tensor, "B D_read"], y_BD: Float[Tensor, "B D_write"]) -> None:
        super().start_from(x_BD, y_BD)
        n = min(self.config.n_candidates, y_BD.shape[0])
        candidates = centroids(y_BD - self.b_dec, n, self.config.iterations)
        self._make_room(n)
        assert self.candidates is not None and self.mixing is not None
        self.candidates.copy_(candidates)
        self.mixing.copy_(torch.eye(n)[torch.arange(self.n_latents) % n])
        W_dec = self.compose()
        if self.wiring.d_read == self.wiring.d_write:
            self.W_enc.copy_(self.config.encoder_init_gain * F.normalize(W_dec, dim=1))

    def compose(self) -> Float[Tensor, "L D_write"]:
        """The decoder of this moment of training, differentiable; ``W_dec`` gets its values."""
        assert self.candidates is not None, "start_from finds the candidates, and settle drops them: no training there"
        assert self.mixing is not None and self.relaxation is not None and self.log_scale is not None
        with torch.no_grad():
            self.mixing.relu_()
            self.mixing.div_(self.mixing.sum(1, keepdim=True).clamp(min=1e-8))
            norms = self.relaxation.norm(dim=1, keepdim=True)
            self.relaxation.mul_((self.config.delta / norms.clamp(min=1e-12)).clamp(max=1.0))
        W_dec = self.log_scale.exp() * (self.mixing @ self.candidates + self.relaxation)
        with torch.no_grad():
            self.W_dec.copy_(W_dec)
        return W_dec

    @torch.no_grad()
    def settle(self) -> None:
        if self.candidates is None:
            return
        self.compose()
        for name in (*_TRAINED, "candidates"):
            setattr(self, name, None)
        self.W_dec.requires_grad_(True)

    def _make_room(self, n_candidates: int) -> None:
        """Tensors of a coder in training, in which ``W_dec`` follows from the others."""
        like = self.W_dec.detach()
        self.mixing = nn.Parameter(like.new_zeros(self.n_latents, n_candidates))
        self.relaxation = nn.Parameter(torch.zeros_like(like))
        self.log_scale = nn.Parameter(like.new_zeros(()))
        self.candidates = like.new_zeros(n_candidates, like.shape[1])
        self.W_dec.requires_grad_(False)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any, **named: Any) -> None:
        """A coder that is loaded is in training, or not, as the saved one was."""
        saved = state_dict.get(f"{prefix}candidates")
        if saved is None:
            self.settle()
        else:
            self._make_room(saved.shape[0])
        super()._load_from_state_dict(state_dict, prefix, *rest, **named)


@torch.no_grad()
def centroids(y_BD: Float[Tensor, "B D"], n: int, iterations: int) -> Float[Tensor, "n D"]:
    """Lloyd's k-means from evenly spaced rows; a centroid that is nearest to no row stays where it is."""
    points = y_BD[torch.linspace(0, y_BD.shape[0] - 1, n).round().long()]
    for _ in range(iterations):
        half_squares = 0.5 * points.square().sum(1)
        nearest = torch.cat([(part @ points.T - half_squares).argmax(1) for part in y_BD.split(1024)])
        sums = torch.zeros_like(points).index_add_(0, nearest, y_BD)
        counts = torch.bincount(nearest, minlength=n)[:, None]
        points = torch.where(counts > 0, sums / counts.clamp(min=1), points)
    return points
