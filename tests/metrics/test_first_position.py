"""The share of the error at the first position, by hand."""

import pytest
import torch

from unweave.metrics import FirstPosition
from unweave.metrics.first_position import PlacedErrors

ERRORS = PlacedErrors(
    torch.tensor([[3.0, 4.0], [1.0, 2.0], [0.0, 5.0], [1.0, 1.0]]), torch.tensor([0, 1, 0, 7]), torch.zeros(4).long()
)


def test_it_is_the_squared_error_of_the_first_rows_over_that_of_all() -> None:
    metric = FirstPosition()
    metric.update(ERRORS)
    assert metric.compute() == {"first_position_share": pytest.approx(50 / 57)}


def test_merged_halves_are_the_whole() -> None:
    first, second = FirstPosition(), FirstPosition()
    first.update(PlacedErrors(*(x[:2] for x in ERRORS)))
    second.update(PlacedErrors(*(x[2:] for x in ERRORS)))
    first.merge(second)
    assert first.compute() == {"first_position_share": pytest.approx(50 / 57)}


def test_a_perfect_coder_has_no_error_anywhere() -> None:
    metric = FirstPosition()
    metric.update(PlacedErrors(torch.zeros(3, 2), torch.arange(3), torch.arange(3)))
    assert metric.compute() == {"first_position_share": 0.0}
