"""AuxK: dead latents learn to explain the error that the living ones leave (Gao et al. 2024, arXiv 2406.04093, A.2).

The ``k_aux`` largest positive pre-activations among dead latents write e_hat, without the decoder's bias, for the
error e = y - y_hat, which is held fixed. The loss is ``|y - mean(y)|^2 * |e - e_hat|^2 / |e - mean(e)|^2``, the
paper's normalised error times the variance of y, so that its weight means the same at any scale. Its gradient reaches
the encoder of dead latents as well as their decoder rows.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from unweave.coders.base import CoderConfig, Moment, SparseCoder
from unweave.coders.peers import Peers
from unweave.errors import UserError
from unweave.kernels.selection import TopKOfRow
from unweave.kernels.sparse_decode import sparse_decode
from unweave.types import Codes


@dataclass(frozen=True, kw_only=True)
class AuxKConfig(CoderConfig):
    """Settings of architectures that revive dead latents by AuxK."""

    aux_coefficient: float = 1 / 32
    """Weight of the loss that revives dead latents."""
    k_aux: int = 64
    """Dead latents per row that take part in that loss; about a quarter to half of the site's width."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k_aux < 1:
            raise UserError(f"coder.k_aux must be at least 1, got {self.k_aux}; set aux_coefficient=0 to turn AuxK off")
        if self.aux_coefficient < 0:
            raise UserError(f"coder.aux_coefficient must not be negative, got {self.aux_coefficient}")


def aux_losses(
    coder: SparseCoder,
    x_BD: Float[Tensor, "B D_read"],
    y_BD: Float[Tensor, "B D_write"],
    y_hat_BD: Tensor,
    moment: Moment,
    *,
    signed: bool = False,
    W_dec: Float[Tensor, "L D_write"] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """The loss ``aux`` of a coder with ``AuxKConfig``; nothing where no latent is dead or the weight is 0.

    ``signed`` takes the largest pre-activations by magnitude, of either sign. ``W_dec`` stands for the coder's own.
    """
    config = coder.config
    assert isinstance(config, AuxKConfig)
    dead = moment.dead
    if config.aux_coefficient == 0 or moment.n_dead == 0:
        return {}
    rule = TopKOfRow(min(config.k_aux, moment.n_dead), signed)
    centre = coder.b_dec.detach() if config.centre else None
    codes = coder.encode_with(x_BD, coder.W_enc[dead], coder.b_enc[dead], rule, centre)
    W_dec = coder.W_dec if W_dec is None else W_dec
    return {"aux": config.aux_coefficient * unexplained(codes, W_dec[dead], y_BD, y_hat_BD, coder.peers)}


def unexplained(
    codes: Codes,
    W_dec: Float[Tensor, "n_dead D_write"],
    y_BD: Float[Tensor, "B D_write"],
    y_hat_BD: Tensor,
    peers: Peers,
) -> Float[Tensor, ""]:
    """What codes of dead latents leave of the error, as a share of its variance, times the variance of ``y``."""
    error_BD = (y_BD - y_hat_BD).detach()
    left = (error_BD - peers.over_latents(sparse_decode(codes, W_dec))).square().sum()
    mean_D = peers.mean_of_rows(error_BD.mean(0))
    spread = peers.mean_of_rows((error_BD - mean_D).square().sum()).clamp(min=1e-12)
    size = peers.mean_of_rows((y_BD - peers.mean_of_rows(y_BD.mean(0))).square().sum(1).mean())
    return size * left / spread
