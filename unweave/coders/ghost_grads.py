"""Ghost grads: dead latents fit the error through an exponential (Jermyn and Templeton 2024, Circuits Updates).

Where g = exp(h_dead) W_dec,dead is what the dead latents would write, and e = y - y_hat the error, held fixed, the loss
is the mean over rows of |e - s g|^2, times the factor that makes it as large as the mean squared error. In each row
s = |e| / (2 |g|); s and the factor are held fixed too. The authors gave the method up two months later; it is here to
replicate what was trained with it. The exponential has no zeros, so what the dead latents write is a dense product.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.coders.base import Moment, SparseCoder, mean_squared_error
from unweave.errors import UserError


def ghost_losses(
    coder: SparseCoder,
    x_BD: Float[Tensor, "B D_read"],
    y_BD: Float[Tensor, "B D_write"],
    y_hat_BD: Tensor,
    moment: Moment,
) -> dict[str, Float[Tensor, ""]]:
    """The loss ``ghost`` of a coder with dead latents; nothing where none is dead."""
    if coder.peers.n_latent_parts > 1:
        raise UserError("coder.ghost_grads needs all latents in one process; set training.latent_parts=1")
    dead = moment.dead
    if dead.shape[0] == 0:
        return {}
    centred_BD = x_BD if coder.centre is None else x_BD - coder.centre.detach()
    pre = torch.addmm(coder.b_enc[dead], centred_BD, coder.W_enc[dead].T)
    # s undoes any factor on a row, so its largest exponential can be 1 and never overflows
    ghost_BD = (pre - pre.detach().amax(1, keepdim=True)).exp() @ coder.W_dec[dead]
    error_BD = (y_BD - y_hat_BD).detach()
    size = ghost_BD.detach().norm(dim=1, keepdim=True).clamp(min=1e-12)
    loss = mean_squared_error(error_BD.norm(dim=1, keepdim=True) / (2.0 * size) * ghost_BD, error_BD)
    factor = error_BD.square().sum() / x_BD.shape[0] / loss.detach().clamp(min=1e-12)
    return {"ghost": factor * loss}
