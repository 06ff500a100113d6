"""signSGD: every number moves by the learning rate against the sign of its gradient (Bernstein et al. 2018).

arXiv 1802.04434, algorithm 1 with one worker. It remembers nothing, so a coder takes a third of the memory that it does
with Adam. Numbers whose gradient is exactly 0, such as those of latents that no row activates, stay where they are.
"""

from typing import final

from torch import Tensor

from unweave.training.optimizer import CoderOptimizer, Moments, Stride


@final
class CoderSign(CoderOptimizer):
    """See the module's docstring for the maths."""

    def no_moments(self, parameter: Tensor) -> Moments:
        return Moments()

    def change(self, weights: Tensor, gradient: Tensor, moments: Moments, stride: Stride) -> None:
        stride.take(weights, stride.lr * stride.used(weights, gradient).sign())
