import torch

from unweave.training.dead_latents import DeadLatents
from unweave.types import Codes


def _codes(*rows: list[int]) -> Codes:
    """Codes of a coder with five latents, which fire in these rows."""
    offsets = [0]
    for row in rows:
        offsets.append(offsets[-1] + len(row))
    latents = torch.tensor([latent for row in rows for latent in row], dtype=torch.int64)
    return Codes(torch.ones(len(latents)), latents, torch.tensor(offsets), 5)


def _counter(window: int) -> DeadLatents:
    return DeadLatents(5, window, torch.device("cpu"))


def test_no_latent_is_dead_at_the_start() -> None:
    dead = _counter(7)
    assert not dead.mask.any()
    assert dead.share == 0.0


def test_rows_are_counted_for_every_latent_that_is_silent() -> None:
    dead = _counter(100)
    dead.update(_codes([0, 1], [1], []))
    assert dead.silent_rows.tolist() == [0, 0, 3, 3, 3]
    dead.update(_codes([2], [2]))
    assert dead.silent_rows.tolist() == [2, 2, 0, 5, 5]
    dead.update(_codes([], []))
    assert dead.silent_rows.tolist() == [4, 4, 2, 7, 7]


def test_a_latent_is_dead_from_the_row_on_that_completes_the_window() -> None:
    dead = _counter(6)
    dead.update(_codes([0], [0], [1]))
    assert not dead.mask.any()
    dead.update(_codes([0], [0]))
    assert dead.silent_rows.tolist() == [0, 2, 5, 5, 5]
    assert not dead.mask.any()
    dead.update(_codes([0]))
    assert dead.mask.tolist() == [False, False, True, True, True]
    assert dead.share == 0.6


def test_a_dead_latent_that_fires_is_alive_again() -> None:
    dead = _counter(2)
    dead.update(_codes([], []))
    assert dead.mask.all()
    dead.update(_codes([3]))
    assert dead.mask.tolist() == [True, True, True, False, True]
