import pytest
from hypothesis import given
from hypothesis import strategies as st

from unweave.training.schedule import rate_factor


@pytest.mark.parametrize(
    ("progress", "factor"),
    [(0.0, 0.0), (0.05, 0.5), (0.1, 1.0), (0.5, 1.0), (0.8, 1.0), (0.9, 0.5), (0.95, 0.25), (1.0, 0.0)],
)
def test_the_rate_rises_stays_and_falls(progress: float, factor: float) -> None:
    assert rate_factor(progress, warm_up=0.1, decay=0.2) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_without_warm_up_and_decay_the_rate_is_constant(progress: float) -> None:
    assert rate_factor(progress, warm_up=0.0, decay=0.0) == 1.0


def test_a_run_may_be_all_warm_up_and_decay() -> None:
    factors = [rate_factor(progress, warm_up=0.5, decay=0.5) for progress in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert factors == [0.0, 0.5, 1.0, 0.5, 0.0]


def test_a_run_that_is_over_has_no_rate() -> None:
    assert rate_factor(1.1, warm_up=0.1, decay=0.2) == 0.0


@given(st.floats(0, 1), st.floats(0, 0.5), st.floats(0, 0.5))
def test_the_factor_is_a_share(progress: float, warm_up: float, decay: float) -> None:
    assert 0.0 <= rate_factor(progress, warm_up, decay) <= 1.0
