"""Every scale of rows on numbers worked by hand, and whitening against the covariance that it promises."""

import pytest
import torch
from torch import Tensor

from unweave.errors import UserError
from unweave.training.input_scale import estimate

ROWS = torch.tensor([[3.0, 4.0], [-3.0, 4.0], [0.0, -8.0], [0.0, 4.0]], dtype=torch.float64)
"""Norms 5, 5, 8, 4; the mean row is (0, 1)."""


@pytest.mark.parametrize(
    ("kind", "factor"),
    [
        # about the mean: 9 + 9, 9 + 9, 81, 9, together 126 over 4 rows
        ("unit_spread", (126 / 4) ** -0.5),
        # about zero: 25 + 25 + 64 + 16 = 130 over 4 rows
        ("unit_square", (130 / 4) ** -0.5),
        # the root of 2 over the mean norm (5 + 5 + 8 + 4) / 4
        ("sqrt_width", 2**0.5 / 5.5),
        ("none", 1.0),
    ],
)
def test_the_factor_is_the_one_worked_by_hand(kind: str, factor: float) -> None:
    scaling = estimate(ROWS, kind, "here")
    assert scaling.factor == pytest.approx(factor, rel=1e-12)
    assert scaling.mean is None and scaling.matrix is None
    torch.testing.assert_close(scaling(ROWS), factor * ROWS)


def _sample(n_rows: int = 601, width: int = 7) -> Tensor:
    """Rows whose directions vary by factors of 100, away from the origin."""
    mixing = torch.randn(width, width, dtype=torch.float64) * torch.logspace(0, 1, width, dtype=torch.float64)
    return torch.randn(n_rows, width, dtype=torch.float64) @ mixing + 5.0


def _covariance(rows: Tensor) -> Tensor:
    centred = rows - rows.mean(0)
    return centred.T @ centred / len(rows)


def test_whitened_rows_have_the_identity_over_the_width_for_covariance() -> None:
    """Up to the share of the mean variance that is added to every axis, which the formula has."""
    sample = _sample()
    white = estimate(sample, "whiten", "here")(sample)
    torch.testing.assert_close(white.mean(0), torch.zeros(7, dtype=torch.float64), rtol=0, atol=1e-12)
    values, axes = torch.linalg.eigh(_covariance(sample))
    expected = axes @ torch.diag(values / (values + 1e-3 * values.mean()) / 7) @ axes.T
    torch.testing.assert_close(_covariance(white), expected, rtol=1e-9, atol=1e-12)
    assert 0.8 < white.square().sum(1).mean().item() <= 1.0


def test_whitening_rows_that_vary_alike_gives_unit_spread_and_nearly_the_identity() -> None:
    sample = torch.randn(5001, 7, dtype=torch.float64) + 3.0
    white = estimate(sample, "whiten", "here")(sample)
    torch.testing.assert_close(_covariance(white), torch.eye(7, dtype=torch.float64) / 7, rtol=0, atol=2e-3 / 7)


def test_whitening_turns_nothing() -> None:
    """Along the principal axes and back: the nearest white rows, not those rotated in some way."""
    sample = _sample()
    scaling = estimate(sample, "whiten", "here")
    assert scaling.matrix is not None and scaling.mean is not None
    torch.testing.assert_close(scaling.matrix, scaling.matrix.T, rtol=1e-9, atol=1e-12)
    assert (torch.linalg.eigvalsh(scaling.matrix) > 0).all()
    torch.testing.assert_close(scaling.mean, sample.mean(0))
    assert scaling.factor == 1.0


def test_whitening_does_not_blow_up_directions_in_which_nothing_varies() -> None:
    sample = _sample()
    sample[:, 3] = 2.5
    white = estimate(sample, "whiten", "here")
    assert white.matrix is not None
    other = sample.clone()
    other[:, 3] += 1e-3
    assert white(other).isfinite().all()
    assert (white(other) - white(sample)).norm(dim=1).max() < 1e-2


def test_the_estimate_is_in_the_precision_of_the_sample() -> None:
    scaling = estimate(_sample().float(), "whiten", "here")
    assert scaling.matrix is not None and scaling.mean is not None
    assert scaling.matrix.dtype == scaling.mean.dtype == torch.float32


@pytest.mark.parametrize("kind", ["unit_spread", "unit_square", "sqrt_width", "whiten", "none"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_rows_that_are_not_finite_or_never_vary_are_refused_by_name(kind: str, bad: float) -> None:
    sample = _sample()
    sample[7, 3] = bad
    with pytest.raises(UserError, match=r"activations at layers\.3\.mlp_in have a spread of (nan|inf)"):
        estimate(sample, kind, "layers.3.mlp_in")
    with pytest.raises(UserError, match=r"have a spread of 0\.0"):
        estimate(torch.ones(100, 7), kind, "layers.3.mlp_in")
