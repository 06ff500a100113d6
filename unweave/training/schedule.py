"""Learning-rate factor over a run: linear warm-up, plateau, linear decay to zero."""


def rate_factor(progress: float, warm_up: float, decay: float) -> float:
    """Factor on the peak learning rate when a share ``progress`` of the run is done.

    ``warm_up`` and ``decay`` are the shares of the run at its start and end over which the rate rises and falls.
    """
    rising = progress / warm_up if warm_up > 0 else 1.0
    falling = (1.0 - progress) / decay if decay > 0 else 1.0
    return max(0.0, min(1.0, rising, falling))
