"""Differences of two coders on the same documents."""

import pytest
import torch

from unweave.analysis.paired import differences
from unweave.errors import UserError
from unweave.metrics import CodedRows, Reconstruction, blocks_of
from unweave.types import Codes


def _measured(x: torch.Tensor, error: torch.Tensor, documents: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    """Rows whose reconstructions miss them by some distance along the first axis."""
    metric = Reconstruction(x.shape[1])
    x_hat = x.clone()
    x_hat[:, 0] += error
    codes = Codes(torch.empty(0), torch.empty(0, dtype=torch.int64), torch.zeros(len(x) + 1, dtype=torch.int64), 3)
    metric.update(CodedRows(x, codes, x_hat, blocks_of(documents)))
    return {"reconstruction": metric.sums}


def _documents() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """30 documents of 10 rows, some far harder than others."""
    documents = torch.arange(30).repeat_interleave(10)
    hard = torch.rand(30, dtype=torch.float64)[documents] * 10
    return torch.randn(300, 7, dtype=torch.float64), hard, documents


def test_a_small_difference_on_every_document_is_real_though_documents_differ_far_more() -> None:
    x, hard, documents = _documents()
    found = differences(_measured(x, hard, documents), _measured(x, hard * 1.01, documents))
    mse = next(d for d in found if d.name == "mse")
    assert mse.second / mse.first == pytest.approx(1.01**2)
    assert 0 < mse.low < mse.second - mse.first < mse.high
    assert mse.is_real
    errors = Reconstruction(7)
    errors.sums = _measured(x, hard, documents)["reconstruction"]
    assert errors.standard_errors()["mse"] > 2 * (mse.second - mse.first), "alone, either is far less certain"


def test_differences_that_come_and_go_between_documents_are_not_real() -> None:
    x, hard, documents = _documents()
    sign = torch.where(documents % 2 == 0, 1.1, 0.9)
    found = {d.name: d for d in differences(_measured(x, hard, documents), _measured(x, hard * sign, documents))}
    assert not found["mse"].is_real


def test_the_interval_is_about_two_standard_errors_of_the_paired_differences() -> None:
    x, _, documents = _documents()
    wrong = torch.rand(30, dtype=torch.float64)[documents]
    found = {d.name: d for d in differences(_measured(x, 0 * wrong, documents), _measured(x, wrong, documents))}
    per_document = wrong[::10].square()
    error = per_document.std() / 30**0.5
    mse = found["mse"]
    assert mse.high - mse.low == pytest.approx(2 * 1.96 * error.item(), rel=0.1)


def test_a_coder_does_not_differ_from_itself() -> None:
    x, hard, documents = _documents()
    sums = _measured(x, hard, documents)
    assert all(d.low == d.high == 0 and not d.is_real for d in differences(sums, sums))


def test_coders_on_other_tokens_are_refused() -> None:
    x, hard, documents = _documents()
    with pytest.raises(UserError, match=r"not measured on the same tokens \(300 and 290\)"):
        differences(_measured(x, hard, documents), _measured(x[:290], hard[:290], documents[:290]))
    with pytest.raises(UserError, match="single document"):
        one = _measured(x, hard, torch.zeros_like(documents))
        differences(one, one)
