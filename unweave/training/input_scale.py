"""How rows at a site are scaled for training, estimated on a first sample.

``unit_spread``: mean square distance to the mean row is 1. ``unit_square``: mean square norm is 1 (Rajamanoharan et al.
2024, arXiv 2407.14435). ``sqrt_width``: the mean norm is the root of the width (Conerly et al. 2024). ``whiten``: the
covariance is the identity over the width (arXiv 2511.13981), so that the spread is 1; axes keep their meaning.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.coders.base import InputScale
from unweave.coders.folding import Scaling
from unweave.errors import UserError

_FLOOR = 1e-3
"""Share of the mean variance that whitening adds to each axis, so that empty axes are not blown up."""


def estimate(sample: Float[Tensor, "B D"], kind: InputScale, site: str) -> Scaling:
    """The scaling that a coder's ``input_scale`` asks for, given rows like those it will be trained on."""
    spread = (sample - sample.mean(0)).square().sum(1).mean().sqrt().item()
    if not 0 < spread < float("inf"):
        raise UserError(
            f"activations at {site} have a spread of {spread}; check the model and its text for NaN or empty rows"
        )
    match kind:
        case "unit_spread":
            return Scaling(1.0 / spread)
        case "unit_square":
            return Scaling(1.0 / sample.square().sum(1).mean().sqrt().item())
        case "sqrt_width":
            return Scaling(sample.shape[1] ** 0.5 / sample.norm(dim=1).mean().item())
        case "whiten":
            return _whitening(sample)
        case "none":
            return Scaling()


def _whitening(sample: Float[Tensor, "B D"]) -> Scaling:
    mean = sample.double().mean(0)
    centred = sample.double() - mean
    values, axes = torch.linalg.eigh(centred.T @ centred / len(sample))
    values = values.clamp(min=0) + _FLOOR * values.mean()
    matrix = axes @ ((values * sample.shape[1]).rsqrt()[:, None] * axes.T)
    return Scaling(1.0, mean.to(sample), matrix.to(sample))
