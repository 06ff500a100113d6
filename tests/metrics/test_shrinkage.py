"""Lengths of reconstructions over lengths of rows, by hand."""

import math

import pytest
import torch

from unweave.metrics import CodedRows, Shrinkage
from unweave.types import Codes


def _coded(x: list[list[float]], x_hat: list[list[float]]) -> CodedRows:
    nothing = Codes(torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(len(x) + 1, dtype=torch.int64), 7)
    return CodedRows(torch.tensor(x), nothing, torch.tensor(x_hat))


def test_it_is_the_mean_of_the_ratios_and_not_the_ratio_of_the_means() -> None:
    """Lengths 5 and 1 of which 5 and 1/2 are left; the row of zeros has no ratio."""
    metric = Shrinkage()
    metric.update(_coded([[3.0, 4.0], [0.0, 0.0], [0.0, 1.0]], [[5.0, 0.0], [1.0, 1.0], [0.0, -0.5]]))
    assert metric.compute() == {"shrinkage": pytest.approx(0.75)}


def test_merged_parts_are_the_whole() -> None:
    first, second = Shrinkage(), Shrinkage()
    first.update(_coded([[3.0, 4.0]], [[3.0, 4.0]]))
    second.update(_coded([[1.0, 0.0], [0.0, 2.0]], [[0.0, 0.0], [0.0, 1.0]]))
    first.merge(second)
    assert first.compute() == {"shrinkage": pytest.approx(0.5)}


def test_without_a_row_that_has_a_length_there_is_nothing_to_tell() -> None:
    metric = Shrinkage()
    metric.update(_coded([[0.0, 0.0]], [[1.0, 0.0]]))
    assert math.isnan(metric.compute()["shrinkage"])
    assert [definition.name for definition in metric.definitions] == ["shrinkage"]
