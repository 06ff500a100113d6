"""Standard errors by leaving out blocks of documents, and figures of blocks drawn again."""

import statistics

import pytest
import torch

from unweave.metrics import L0, CodedRows, blocks_of
from unweave.types import Codes


def _rows(counts: list[int], document_ids: list[int]) -> CodedRows:
    """A row of each document with so many active latents."""
    ids = torch.cat([torch.arange(count) for count in counts])
    offsets = torch.tensor([0, *counts]).cumsum(0)
    nothing = torch.zeros(len(counts), 1)
    codes = Codes(torch.ones(len(ids)), ids, offsets, 100)
    return CodedRows(nothing, codes, nothing, blocks_of(torch.tensor(document_ids)))


def test_for_a_mean_of_equal_documents_it_is_the_textbook_error() -> None:
    counts = [3, 7, 1, 9, 4, 6]
    metric = L0()
    metric.update(_rows(counts, list(range(6))))
    assert metric.compute()["l0"] == pytest.approx(5.0)
    assert metric.standard_errors()["l0"] == pytest.approx(statistics.stdev(counts) / len(counts) ** 0.5)


def test_rows_of_one_document_count_as_one_observation() -> None:
    """Ten equal rows of a document say no more about other documents than one."""
    once, often = L0(), L0()
    once.update(_rows([3, 7, 1, 9], [0, 1, 2, 3]))
    often.update(_rows([3] * 10 + [7] * 10 + [1] * 10 + [9] * 10, [d for d in range(4) for _ in range(10)]))
    assert often.standard_errors()["l0"] == pytest.approx(once.standard_errors()["l0"])


def test_more_documents_than_blocks_share_them() -> None:
    """128 documents that alternate within each block: blocks are all alike, so there is nearly no error."""
    metric = L0()
    metric.update(_rows([2 if d < 64 else 8 for d in range(128)], list(range(128))))
    assert metric.compute()["l0"] == pytest.approx(5.0)
    assert metric.standard_errors()["l0"] == pytest.approx(0.0, abs=1e-9)


def test_one_document_has_no_error_to_tell() -> None:
    metric = L0()
    metric.update(_rows([3, 5], [7, 7]))
    assert metric.standard_errors() == {}


def test_blocks_that_are_drawn_again_count_as_often_as_they_are_drawn() -> None:
    metric = L0()
    metric.update(_rows([3, 7, 1], [0, 1, 2]))
    weights = torch.zeros(2, 64, dtype=torch.float64)
    weights[0, :3], weights[1, 1] = 1.0, 5.0
    assert metric.resampled(weights)["l0"].tolist() == pytest.approx([11 / 3, 7.0])
