"""Standard errors by leaving out blocks."""

import statistics

import pytest
import torch

from unweave.metrics import L0, CodedRows, Jackknife
from unweave.types import Codes


def _rows(n_active: int, n_rows: int = 1) -> CodedRows:
    """Rows of which each has ``n_active`` latents on."""
    ids = torch.arange(n_active).repeat(n_rows)
    offsets = torch.arange(n_rows + 1) * n_active
    return CodedRows(torch.zeros(n_rows, 1), Codes(torch.ones(len(ids)), ids, offsets, 100), torch.zeros(n_rows, 1))


def test_for_a_mean_of_equal_blocks_it_is_the_textbook_error() -> None:
    counts = [3, 7, 1, 9, 4, 6]
    jackknife = Jackknife(L0)
    for count in counts:
        jackknife.update(_rows(count))
    expected = statistics.stdev(counts) / len(counts) ** 0.5
    assert jackknife.standard_errors()["l0"] == pytest.approx(expected)
    assert jackknife.total().compute()["l0"] == pytest.approx(5.0)


def test_many_batches_are_joined_into_blocks_of_neighbours() -> None:
    """100 alternating batches: neighbours average out, so blocks of several batches show nearly no error."""
    jackknife = Jackknife(L0)
    for i in range(100):
        jackknife.update(_rows(2 if i % 2 else 8))
    assert jackknife.total().compute()["l0"] == pytest.approx(5.0)
    assert jackknife.standard_errors()["l0"] == pytest.approx(0.0, abs=1e-9)


def test_one_block_has_no_error_to_tell() -> None:
    jackknife = Jackknife(L0)
    jackknife.update(_rows(3))
    assert jackknife.standard_errors() == {}
