"""Scaling laws: known parameters are found again, with and without noise."""

import math

import numpy as np
import pytest

from unweave.analysis.scaling import (
    COMPUTE,
    DEFINITIONS,
    JOINT,
    ScalingRun,
    best_widths,
    bootstrap,
    extrapolation_errors,
    fit,
    scaling_figures,
)
from unweave.errors import UserError

TRUE = {"alpha": -0.5, "beta_k": 0.26, "beta_n": -0.017, "gamma": -0.042, "zeta": -3.2, "eta": -0.5}


def _loss(n: float, k: float) -> float:
    p = TRUE
    first = p["alpha"] + p["beta_k"] * math.log(k) + p["beta_n"] * math.log(n) + p["gamma"] * math.log(k) * math.log(n)
    return math.exp(first) + math.exp(p["zeta"] + p["eta"] * math.log(k))


def _grid(noise: float = 0.0, seed: int = 0) -> list[ScalingRun]:
    generator = np.random.default_rng(seed)
    sizes = [(2**n, 2**k) for n in range(9, 19) for k in range(2, 9)]
    return [ScalingRun(_loss(n, k) * math.exp(noise * generator.normal()), n, k) for n, k in sizes]


def _by_compute(noise: float = 0.0) -> list[ScalingRun]:
    """L = 0.4 + 30 C^-0.3, each width at two computes."""
    generator = np.random.default_rng(1)
    computes = np.logspace(3, 9, 14)
    losses = (0.4 + 30 * computes**-0.3) * np.exp(noise * generator.normal(size=14))
    return [
        ScalingRun(loss, 2 ** (8 + i // 2), 32, c) for i, (loss, c) in enumerate(zip(losses, computes, strict=True))
    ]


def test_a_law_in_compute_is_found_again() -> None:
    found = fit(COMPUTE, _by_compute(), starts=10)
    assert found.parameters["log_L_inf"] == pytest.approx(math.log(0.4), abs=1e-3)
    assert found.parameters["b"] == pytest.approx(0.3, abs=1e-3)
    assert found.parameters["log_a"] == pytest.approx(math.log(30), abs=1e-2)
    assert found.error < 1e-4
    run = ScalingRun(1.0, 1, 1, 1e12)
    assert found.predict([run])[0] == pytest.approx(0.4 + 30 * 1e12**-0.3, rel=1e-3)


def test_the_joint_law_is_found_again() -> None:
    found = fit(JOINT, _grid(), starts=20)
    for name, value in TRUE.items():
        assert found.parameters[name] == pytest.approx(value, abs=0.02), name
    assert found.error < 1e-4


def test_noise_is_within_the_intervals_and_outliers_move_little() -> None:
    runs = _by_compute(noise=0.005)
    found = fit(COMPUTE, runs, starts=10)
    intervals = bootstrap(found, runs, draws=60, starts=2)
    truth = {"log_L_inf": math.log(0.4), "b": 0.3, "log_a": math.log(30)}
    for name, value in truth.items():
        assert intervals[name].low < value < intervals[name].high, name
        assert intervals[name].low <= found.parameters[name] <= intervals[name].high
    assert intervals["b"].high - intervals["b"].low < 0.1
    runs[5] = runs[5]._replace(loss=runs[5].loss * 3)
    assert fit(COMPUTE, runs, starts=10).parameters["b"] == pytest.approx(0.3, abs=0.03)


def test_a_width_that_was_left_out_is_predicted_where_the_law_holds() -> None:
    errors = extrapolation_errors(COMPUTE, _by_compute(), starts=5)
    assert list(errors) == [2**n for n in range(8, 15)]
    assert all(error is not None and error < 1e-3 for error in errors.values())
    broken = [run._replace(loss=run.loss * (2 if run.n_latents == 2**14 else 1)) for run in _by_compute()]
    found = extrapolation_errors(COMPUTE, broken, starts=5)[2**14]
    assert found == pytest.approx(math.log(2), abs=0.05)


def test_a_width_without_which_nothing_is_known_has_no_error() -> None:
    runs = [run._replace(n_latents=100 if i < 12 else 200) for i, run in enumerate(_by_compute())]
    errors = extrapolation_errors(COMPUTE, runs, starts=5)
    assert errors[100] is None and errors[200] is not None


def test_figures_are_those_of_the_fit() -> None:
    figures = scaling_figures(COMPUTE, _by_compute(), starts=5)
    assert figures["scaling_floor"] == pytest.approx(0.4, rel=1e-3)
    assert figures["scaling_exponent"] == pytest.approx(0.3, abs=1e-3)
    assert math.isnan(figures["scaling_best_width_exponent"]), "every compute has one width"
    assert set(figures) == {definition.name for definition in DEFINITIONS}


def test_the_best_width_is_the_lowest_point_of_a_parabola() -> None:
    """Losses are a parabola in log n about 2 C^0.4 for two computes; a third is lowest at its edge, one has a hill."""
    runs = []
    for compute in (1e5, 1e7):
        best = 2 * compute**0.4
        runs += [
            ScalingRun(1 + 0.1 * math.log(n / best) ** 2, n, 32, compute)
            for n in (round(best * factor) for factor in (0.25, 0.5, 2, 4))
        ]
    runs += [ScalingRun(1 + 0.1 * math.log(n / 10) ** 2, n, 32, 1e3) for n in (100, 200, 400)]
    runs += [ScalingRun(1 - 0.1 * math.log(n / 200) ** 2, n, 32, 1e4) for n in (100, 200, 400)]
    found = best_widths(runs)
    assert found.n_opt[1e3] is None and found.n_opt[1e4] is None
    assert found.n_opt[1e5] == pytest.approx(2 * 1e5**0.4, rel=1e-3)
    assert found.exponent == pytest.approx(0.4, abs=1e-3)
    assert found.scale == pytest.approx(2.0, rel=1e-2)
    assert math.isnan(best_widths(runs[:4]).exponent)
    assert best_widths(runs[:2]).n_opt[1e5] is None


def test_runs_that_say_nothing_of_a_law_are_refused() -> None:
    with pytest.raises(UserError, match="has 3 parameters, which 2 runs do not determine"):
        fit(COMPUTE, _by_compute()[:2])
    with pytest.raises(UserError, match="has 6 parameters"):
        fit(JOINT, [run for run in _grid() if run.k == 4])
    with pytest.raises(UserError, match="losses and settings above 0"):
        fit(COMPUTE, _grid())
    with pytest.raises(UserError, match="losses and settings above 0"):
        fit(JOINT, [*_grid(), ScalingRun(-1.0, 5, 5)])
    with pytest.raises(UserError, match="runs with their compute"):
        best_widths([])
