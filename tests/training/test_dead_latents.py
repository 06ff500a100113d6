import torch
from torch import Tensor

from unweave.training.dead_latents import DeadLatents
from unweave.types import Codes


def _codes(*rows: list[int], values: Tensor | None = None) -> Codes:
    """Codes of a coder with five latents, which fire in these rows."""
    offsets = [0]
    for row in rows:
        offsets.append(offsets[-1] + len(row))
    latents = torch.tensor([latent for row in rows for latent in row], dtype=torch.int64)
    values = torch.ones(len(latents)) if values is None else values
    return Codes(values, latents, torch.tensor(offsets), 5)


def _counter(window: int) -> DeadLatents:
    return DeadLatents(5, window, torch.device("cpu"))


def test_no_latent_is_dead_at_the_start() -> None:
    dead = _counter(7)
    assert not dead.mask.any()
    assert dead.share == 0.0
    assert dead.ids.tolist() == dead.look().tolist() == []


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


def test_an_explicit_zero_is_no_firing_and_a_negative_value_is_one() -> None:
    dead = _counter(100)
    dead.update(_codes([0, 1, 2], values=torch.tensor([0.0, -0.5, 2.0])))
    assert dead.silent_rows.tolist() == [1, 0, 0, 1, 1]


def test_values_that_cancel_still_count_as_firing() -> None:
    dead = _counter(100)
    dead.update(_codes([3], [3], values=torch.tensor([0.7, -0.7])))
    assert dead.silent_rows.tolist() == [2, 2, 2, 0, 2]


def test_ids_are_those_of_the_last_look_at_most_ten_steps_ago() -> None:
    dead = _counter(3)
    for step in range(1, 10):
        dead.update(_codes([0, 1]))
        assert dead.ids.tolist() == [], step
    assert dead.mask.tolist() == [False, False, True, True, True]
    dead.update(_codes([0, 1]))
    assert dead.ids.tolist() == [2, 3, 4]
    dead.update(_codes([2]))
    assert dead.ids.tolist() == [2, 3, 4], "not looked at again yet"
    assert dead.look().tolist() == dead.ids.tolist() == [3, 4]


def test_revived_latents_are_counted_as_if_they_had_just_fired() -> None:
    dead = _counter(3)
    dead.update(_codes([0], [0], [0]))
    assert dead.look().tolist() == [1, 2, 3, 4]
    dead.revive(torch.tensor([1, 4]))
    assert dead.silent_rows.tolist() == [0, 0, 3, 3, 0]
    assert dead.ids.tolist() == [2, 3]


def test_counting_builds_no_graph() -> None:
    dead = _counter(3)
    dead.update(_codes([0, 1], values=torch.ones(2, requires_grad=True)))
    assert not dead.silent_rows.requires_grad
