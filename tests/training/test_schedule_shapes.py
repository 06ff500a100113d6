"""Shapes of the learning rate's decay, and restarts, against numbers worked by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training import runs
from unweave.errors import UserError
from unweave.training.config import TrainingConfig
from unweave.training.loop import train
from unweave.training.schedule import Shape, rate_factor


@pytest.mark.parametrize(
    ("progress", "factor"),
    [(0.05, 0.5), (0.1, 1.0), (0.4, 1.0), (0.55, 0.5 + math.sqrt(2) / 4), (0.7, 0.5), (0.8, 0.25), (1.0, 0.0)],
)
def test_a_cosine_falls_from_one_to_zero_over_the_decay(progress: float, factor: float) -> None:
    """Half a cosine from 0.4 to 1: a quarter of it is cos(45 degrees), two thirds of it cos(120 degrees)."""
    assert rate_factor(progress, 0.1, 0.6, "cosine") == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize("progress", [0.1, 0.5, 1.0])
def test_a_constant_rate_stays_after_its_warm_up(progress: float) -> None:
    assert rate_factor(progress, 0.1, 0.0, "constant") == 1.0


def test_restarts_repeat_the_cycle_within_the_run() -> None:
    factors = [rate_factor(i / 12, 0.25, 0.5, restarts=2) for i in range(1, 13)]
    assert factors == pytest.approx([1.0, 1.0, 0.5, 0.0] * 3, abs=1e-9)


@given(
    st.floats(0, 1), st.floats(0, 0.5), st.floats(0.01, 0.5), st.sampled_from(["linear", "cosine"]), st.integers(0, 4)
)
def test_the_factor_is_a_share_and_ends_at_zero(
    progress: float, warm_up: float, decay: float, shape: Shape, restarts: int
) -> None:
    assert 0.0 <= rate_factor(progress, warm_up, decay, shape, restarts) <= 1.0
    assert rate_factor(1.0, warm_up, decay, shape, restarts) == 0.0


def test_a_run_follows_the_shape_and_the_restarts_of_its_settings() -> None:
    config = TrainingConfig(
        rows=800, batch=100, buffer=200, lr=0.01, warm_up=0.25, decay=0.5, schedule="cosine", restarts=1, log_every=1
    )
    reports = train([runs.trainee_of(config=config)], runs.data(8, size=100), config)
    rates = [report.metrics["batch_topk"]["lr"] for report in reports]
    assert rates == pytest.approx([0.01, 0.01, 0.005, 0.0] * 2, abs=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "constant"}, r'schedule="constant" needs training\.decay=0, got 0\.2'),
        ({"schedule": "cosine", "decay": 0.0}, r'schedule="cosine" has no effect with training\.decay=0'),
        ({"restarts": -1}, r"restarts must not be negative, got -1"),
        ({"restarts": 1, "warm_up": 0.0, "decay": 0.0}, r"restarts=1 has no effect without"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainingConfig(**settings)
