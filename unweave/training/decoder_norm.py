"""Keep decoder rows at unit norm: remove the radial part of their gradient, renormalise after the step.

The policy of Bricken et al. (2023) and Gao et al. (2024); without it a coder escapes its penalty by growing W_dec.
"""

import torch

from unweave.coders import SparseCoder


@torch.no_grad()
def remove_radial_gradient(coder: SparseCoder) -> None:
    """Project the gradient of each decoder row onto the tangent of the unit sphere."""
    gradient, W_dec = coder.W_dec.grad, coder.W_dec
    assert gradient is not None
    gradient.addcmul_(W_dec, (gradient * W_dec).sum(1, keepdim=True), value=-1.0)


@torch.no_grad()
def renormalise(coder: SparseCoder) -> None:
    """Divide each decoder row by its norm."""
    coder.W_dec.div_(coder.W_dec.norm(dim=1, keepdim=True).clamp(min=1e-12))
