"""Learning-rate factor over a run: linear warm-up, plateau, decay to zero; with restarts, again and again."""

import math
from typing import Literal

Shape = Literal["linear", "cosine", "constant"]


def rate_factor(progress: float, warm_up: float, decay: float, shape: Shape = "linear", restarts: int = 0) -> float:
    """Factor on the peak learning rate when a share ``progress`` of the run is done.

    ``warm_up`` and ``decay`` are the shares of a cycle at its start and end over which the rate rises and falls. The
    run is 1 + ``restarts`` cycles of one length (Loshchilov and Hutter 2017); the end of a cycle belongs to it.
    """
    n_cycles = restarts + 1
    cycle = min(n_cycles, max(1, math.ceil(progress * n_cycles))) - 1
    phase = progress * n_cycles - cycle
    rising = phase / warm_up if warm_up > 0 else 1.0
    falling = (1.0 - phase) / decay if decay > 0 else 1.0
    factor = max(0.0, min(1.0, rising, falling))
    if shape == "cosine" and falling < 1.0:
        return 0.5 * (1.0 - math.cos(math.pi * factor))
    return factor
