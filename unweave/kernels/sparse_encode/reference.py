"""Active pre-activations, defined: ``out[e] = x[row(e)] . W_enc[latent(e)] + b_enc[latent(e)]``."""

from jaxtyping import Float
from torch import Tensor

from unweave.types import Codes


def active_preactivations(
    codes: Codes, x: Float[Tensor, "B D"], W_enc: Float[Tensor, "L D"], b_enc: Float[Tensor, " L"]
) -> Float[Tensor, " E"]:
    """The full encoder product, of which only the active entries are kept; autograd gives its gradients."""
    return (x @ W_enc.T + b_enc)[codes.row_ids, codes.latent_ids]
