"""A running mean of a coder's weights, which is less noisy than the weights of any one step (Polyak averaging).

After step n, mean <- mean + (w - mean) (1 - decay) / (1 - decay^n): the exponential moving average with the bias of its
start divided out, as in Adam, so that the mean of a short run is not held back by where the weights began. Numbers that
follow training without gradient, such as thresholds, are not averaged.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from unweave.coders import SparseCoder
from unweave.training.optimizer import names_per_latent, wide


class WeightAverage:
    """The running mean of the trained parameters of one coder."""

    def __init__(self, coder: SparseCoder, decay: float) -> None:
        self.coder = coder
        self.decay = decay
        self.weights = {
            name: p.detach().to(wide(p), copy=True) for name, p in coder.named_parameters() if p.requires_grad
        }

    @torch.no_grad()
    def update(self, n_steps: int) -> None:
        """See the weights after a step; ``n_steps`` counts it."""
        fresh = (1.0 - self.decay) / (1.0 - self.decay**n_steps)
        for name, mean in self.weights.items():
            mean.lerp_(self.coder.get_parameter(name).to(mean), fresh)

    @torch.no_grad()
    def restart_rows(self, latents: Int[Tensor, " n"]) -> None:
        """Take the weights of some latents as they are now, since what they were before means nothing."""
        for name in names_per_latent(self.coder):
            self.weights[name][latents] = self.coder.get_parameter(name)[latents].to(self.weights[name])

    @torch.no_grad()
    def put_into_coder(self) -> None:
        """Make the mean the coder's weights; decoder rows of unit norm are given it again."""
        for name, mean in self.weights.items():
            self.coder.get_parameter(name).copy_(mean)
        if self.coder.config.decoder_norm == "unit":
            self.coder.W_dec.div_(self.coder.W_dec.norm(dim=1, keepdim=True).clamp(min=1e-12))

    def state(self) -> dict[str, Tensor]:
        """The mean of every parameter, by its name."""
        return dict(self.weights)

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what ``state`` gave."""
        for name, mean in self.weights.items():
            mean.copy_(state[name])
