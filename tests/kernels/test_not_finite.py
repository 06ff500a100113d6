"""NaN and infinity in rows, weights or biases: what comes out may be anything, but it is codes, and only there."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unweave.kernels.encode import encode
from unweave.kernels.selection import Above, GroupMax, Rule, TopKOfBatch, TopKOfRow, select
from unweave.kernels.sparse_decode import sparse_decode
from unweave.types import Codes

from .conftest import assert_well_formed, bfloat16_proposes, float32_alone

BAD = [float("nan"), float("inf"), -float("inf"), 3e38]
"""The last is finite, but neither its square nor its rounding to bfloat16 is."""
OF_ROWS: list[Rule] = [TopKOfRow(7), TopKOfRow(7, signed=True), TopKOfRow(63), Above(0.5), GroupMax(9)]
RULES: list[Rule] = [*OF_ROWS, TopKOfBatch(7.3), TopKOfBatch(63.0)]


def _parts() -> dict[str, Tensor]:
    return {"x": torch.randn(101, 7), "W": torch.randn(63, 7), "bias": torch.randn(63)}


def _spoil(tensor: Tensor, bad: float, share: str) -> None:
    """One number, one row, every third number at random, or all."""
    match share:
        case "one":
            tensor.view(-1)[5] = bad
        case "row":
            tensor[2] = bad
        case "many":
            tensor[torch.rand(tensor.shape) < 0.3] = bad
        case "all":
            tensor[:] = bad


@pytest.mark.parametrize("precision", [bfloat16_proposes, float32_alone])
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("bad", BAD)
def test_codes_stay_well_formed_wherever_the_bad_numbers_are(
    bad: float, rule: Rule, precision: Callable[[], AbstractContextManager]
) -> None:
    for name in ("x", "W", "bias"):
        for share in ("one", "row", "many", "all"):
            parts = _parts()
            _spoil(parts[name], bad, share)
            for dtype in (torch.float32, torch.float64):
                with precision():
                    codes = encode(parts["x"].to(dtype), parts["W"].to(dtype), parts["bias"].to(dtype), rule)
                assert_well_formed(codes, (101, 63))


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("bad", BAD)
def test_codes_of_a_matrix_stay_well_formed(bad: float, rule: Rule) -> None:
    for share in ("one", "row", "many", "all"):
        pre = torch.randn(101, 63)
        _spoil(pre, bad, share)
        assert_well_formed(select(pre, rule), (101, 63))


@pytest.mark.parametrize("bad", BAD[:3])
def test_a_threshold_may_be_anything(bad: float) -> None:
    thresholds = torch.rand(63)
    thresholds[7] = bad
    for rule in (Above(thresholds), Above(bad)):
        codes = select(torch.randn(101, 63), rule)
        assert_well_formed(codes, (101, 63))
        if bad != -float("inf"):
            assert not (codes.latent_ids == 7).any()


@pytest.mark.parametrize("precision", [bfloat16_proposes, float32_alone])
@pytest.mark.parametrize("rule", OF_ROWS, ids=str)
@pytest.mark.parametrize("bad", BAD)
def test_a_bad_row_leaves_the_other_rows_as_they_were(
    bad: float, rule: Rule, precision: Callable[[], AbstractContextManager]
) -> None:
    x, W, bias = _parts().values()
    with precision():
        before = encode(x, W, bias, rule).dense()
        x[2], x[77, 3] = bad, bad
        after = encode(x, W, bias, rule).dense()
    good = torch.ones(101, dtype=torch.bool)
    good[[2, 77]] = False
    torch.testing.assert_close(after[good], before[good], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bad", BAD[:3])
def test_the_error_of_a_row_that_is_not_finite_is_not_finite(bad: float) -> None:
    """So that training sees it, even where the row has no codes."""
    x, W, bias = _parts().values()
    x[2, 3] = bad
    with bfloat16_proposes():
        codes: Codes = encode(x, W, bias, TopKOfRow(7))
    assert not (sparse_decode(codes, W) - x).square().sum().isfinite()


def test_gradients_that_are_not_finite_pass_through() -> None:
    x, W, bias = (part.requires_grad_() for part in _parts().values())
    codes = encode(x, W, bias, TopKOfRow(7))
    cotangent = torch.full_like(codes.values, float("nan"))
    for gradient in torch.autograd.grad(codes.values, (x, W, bias), cotangent):
        assert gradient.isnan().any()


@pytest.mark.slow
def test_no_compiled_kernel_reads_or_writes_beyond_its_arrays(tmp_path: Path) -> None:
    """All tests of this folder once more, compiled so that an index out of bounds is an error."""
    checked = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    folder = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", f"--ignore={folder / 'gpu'}", str(folder)]
    done = subprocess.run(command, env=checked, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
