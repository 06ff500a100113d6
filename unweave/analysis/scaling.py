"""Scaling laws of coders: how their loss falls with compute, or with the number of latents and of active ones.

    compute   L(C) = L_inf + a C^-b
    joint     L(n, k) = exp(alpha + beta_k log k + beta_n log n + gamma log k log n) + exp(zeta + eta log k)
              (Gao et al. 2024, arXiv 2406.04093), with n latents of which k are active

Both are a sum of two exponentials of linear forms, exp(X u) + exp(Z v), so one fit serves both. It takes the parameters
with the least mean Huber loss (threshold 0.001) of log L_hat - log L, found by L-BFGS from many starts (Hoffmann et al.
2022, arXiv 2203.15556). A start puts a share of the smallest loss into the second term and fits the first by least
squares. Intervals are of 95 % of bootstrap draws of whole runs. A law is worth what it says of widths that it has not
seen: leaving out one width at a time and predicting it gives the error to publish.

The best width at a given compute (IsoFLOP, Hoffmann et al. 2022): a parabola in log n through the losses of one
compute, whose lowest point is n_opt; then n_opt is fitted as c C^p over all computes. A parabola that opens downwards,
or is lowest outside the widths measured, has no n_opt.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from unweave.errors import UserError
from unweave.metrics.base import Definition

_HUBER = 1e-3
_INTERVAL = (2.5, 97.5)

DEFINITIONS = (
    Definition(
        "scaling_error",
        "Error of the fit",
        "Mean absolute difference of the logarithms of the fitted and the measured losses, about a relative error.",
        "under 0.02",
    ),
    Definition(
        "scaling_extrapolation_error",
        "Error at widths not seen",
        "The same for runs of a width that was left out of the fit, averaged over all widths.",
        "under 0.05; far above the error of the fit where the law does not hold",
    ),
    Definition(
        "scaling_floor",
        "Loss that no compute removes",
        "The constant L_inf of the law in compute.",
        "below all measured losses",
    ),
    Definition(
        "scaling_exponent",
        "Exponent of compute",
        "The b with which the loss above its floor falls as compute to the power of -b.",
        "0.05 to 0.5",
    ),
    Definition(
        "scaling_best_width_exponent",
        "Exponent of the best width",
        "The p with which the best number of latents grows as compute to the power of p.",
        "0.3 to 0.7",
    ),
)


class ScalingRun(NamedTuple):
    """One trained coder."""

    loss: float
    n_latents: int
    k: float
    """Active latents per row."""
    compute: float = float("nan")
    """Operations of training, in any unit that all runs share."""


class Law(NamedTuple):
    """A form of law: the linear forms of its two terms, and the names of their factors."""

    name: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    design: Callable[[Sequence[ScalingRun]], tuple[np.ndarray, np.ndarray]]


class Interval(NamedTuple):
    """Of 95 % of the bootstrap draws."""

    low: float
    high: float


class Fit(NamedTuple):
    """A law with its parameters."""

    law: Law
    parameters: dict[str, float]
    error: float
    """Mean absolute difference of logarithms on the runs that were fitted."""

    def predict(self, runs: Sequence[ScalingRun]) -> np.ndarray:
        """The loss of each run according to the law; their own losses are not read."""
        return np.exp(_log_loss(np.array(list(self.parameters.values())), *self.law.design(runs)))


class BestWidths(NamedTuple):
    """The best number of latents at each compute, and its power law."""

    n_opt: dict[float, float | None]
    """By compute; None where the widths measured do not enclose a lowest point."""
    exponent: float
    """NaN with fewer than two lowest points."""
    scale: float


def _compute_design(runs: Sequence[ScalingRun]) -> tuple[np.ndarray, np.ndarray]:
    log_c = np.log([run.compute for run in runs])
    ones = np.ones_like(log_c)
    return np.stack([ones, -log_c], 1), ones[:, None]


def _joint_design(runs: Sequence[ScalingRun]) -> tuple[np.ndarray, np.ndarray]:
    log_n, log_k = np.log([run.n_latents for run in runs]), np.log([run.k for run in runs])
    ones = np.ones_like(log_n)
    return np.stack([ones, log_k, log_n, log_k * log_n], 1), np.stack([ones, log_k], 1)


COMPUTE = Law("compute", ("log_a", "b"), ("log_L_inf",), _compute_design)
JOINT = Law("joint", ("alpha", "beta_k", "beta_n", "gamma"), ("zeta", "eta"), _joint_design)


def fit(law: Law, runs: Sequence[ScalingRun], *, starts: int = 100, seed: int = 0) -> Fit:
    """The parameters with the least loss over many starts.

    Raises ``UserError`` for fewer runs than parameters, and for runs that do not vary in what the law is about.
    """
    _check(law, runs)
    return _fit(law, runs, _starts(law, runs, starts, np.random.default_rng(seed)))


def bootstrap(
    fitted: Fit, runs: Sequence[ScalingRun], *, draws: int = 200, starts: int = 5, seed: int = 0
) -> dict[str, Interval]:
    """Intervals of the parameters over draws of runs, each refitted from the fit of all and from a few starts.

    Draws that leave fewer distinct values than the law needs are drawn again.
    """
    _check(fitted.law, runs)
    generator = np.random.default_rng(seed)
    known = np.array(list(fitted.parameters.values()))
    found: list[list[float]] = []
    tries = 0
    while len(found) < draws:
        tries += 1
        if tries > 20 * draws:
            raise UserError(f"too few of {len(runs)} runs differ for a bootstrap; measure more runs or seeds")
        drawn = [runs[i] for i in generator.integers(len(runs), size=len(runs))]
        if is_determined(fitted.law, drawn):
            begin = [known, *_starts(fitted.law, drawn, starts, generator)]
            found.append(list(_fit(fitted.law, drawn, begin).parameters.values()))
    low, high = np.percentile(np.array(found), _INTERVAL, axis=0)
    return {name: Interval(float(a), float(b)) for name, a, b in zip(fitted.parameters, low, high, strict=True)}


def extrapolation_errors(
    law: Law, runs: Sequence[ScalingRun], *, starts: int = 30, seed: int = 0
) -> dict[int, float | None]:
    """By width, the mean absolute difference of logarithms when runs of that width are predicted from all others.

    None where the others do not determine the law.
    """
    _check(law, runs)
    errors: dict[int, float | None] = {}
    for width in sorted({run.n_latents for run in runs}):
        seen = [run for run in runs if run.n_latents != width]
        left = [run for run in runs if run.n_latents == width]
        known = is_determined(law, seen)
        errors[width] = _error(fit(law, seen, starts=starts, seed=seed), left) if known else None
    return errors


def scaling_figures(law: Law, runs: Sequence[ScalingRun], *, starts: int = 100, seed: int = 0) -> dict[str, float]:
    """The errors of a law, and what a law in compute says; NaN for what the runs do not tell."""
    return figures_of(fit(law, runs, starts=starts, seed=seed), runs, starts=min(starts, 30), seed=seed)


def figures_of(fitted: Fit, runs: Sequence[ScalingRun], *, starts: int = 30, seed: int = 0) -> dict[str, float]:
    """The same of a law that was fitted to these runs."""
    law = fitted.law
    by_width = extrapolation_errors(law, runs, starts=starts, seed=seed)
    errors = [error for error in by_width.values() if error is not None]
    figures = {
        "scaling_error": fitted.error,
        "scaling_extrapolation_error": float(np.mean(errors)) if errors else float("nan"),
    }
    if law is COMPUTE:
        figures["scaling_floor"] = float(np.exp(fitted.parameters["log_L_inf"]))
        figures["scaling_exponent"] = fitted.parameters["b"]
        figures["scaling_best_width_exponent"] = best_widths(runs).exponent
    return figures


def best_widths(runs: Sequence[ScalingRun]) -> BestWidths:
    """The IsoFLOP method; runs of one compute have exactly the same ``compute``."""
    groups: dict[float, list[ScalingRun]] = defaultdict(list)
    for run in runs:
        groups[run.compute].append(run)
    if not groups or not all(np.isfinite(compute) and compute > 0 for compute in groups):
        raise UserError("the best width needs runs with their compute, above 0; got none or runs without it")
    n_opt = {compute: _lowest(groups[compute]) for compute in sorted(groups)}
    known = [(np.log(compute), np.log(n)) for compute, n in n_opt.items() if n is not None]
    if len(known) < 2:
        return BestWidths(n_opt, float("nan"), float("nan"))
    log_compute, log_n = np.array(known).T
    exponent, offset = np.polyfit(log_compute, log_n, 1)
    return BestWidths(n_opt, float(exponent), float(np.exp(offset)))


def _lowest(runs: Sequence[ScalingRun]) -> float | None:
    """Where a parabola in log n through the losses is lowest."""
    log_n = np.log([run.n_latents for run in runs])
    if len(np.unique(log_n)) < 3:
        return None
    centre = log_n.mean()
    square, slope, _ = np.polyfit(log_n - centre, [run.loss for run in runs], 2)
    if square <= 0:
        return None
    at = centre - slope / (2 * square)
    return float(np.exp(at)) if log_n.min() <= at <= log_n.max() else None


def _fit(law: Law, runs: Sequence[ScalingRun], begin: Sequence[np.ndarray]) -> Fit:
    """The best of L-BFGS from every start, in coordinates in which the columns of each term are orthonormal."""
    from scipy.optimize import minimize

    X, Z = law.design(runs)
    (Q_X, R_X), (Q_Z, R_Z) = (np.linalg.qr(columns) for columns in (X, Z))
    turn = np.zeros((len(R_X) + len(R_Z),) * 2)
    turn[: len(R_X), : len(R_X)], turn[len(R_X) :, len(R_X) :] = R_X, R_Z
    target = np.log([run.loss for run in runs])
    options: dict[str, Any] = {"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-10}
    results = [
        minimize(_objective, turn @ start, (Q_X, Q_Z, target), "L-BFGS-B", jac=True, options=options) for start in begin
    ]
    best = np.linalg.solve(turn, min(results, key=lambda result: result.fun).x)
    fitted = Fit(law, dict(zip(law.first + law.second, best.tolist(), strict=True)), 0.0)
    return fitted._replace(error=_error(fitted, runs))


def _objective(theta: np.ndarray, X: np.ndarray, Z: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean Huber loss over its threshold, and its gradient."""
    u, v = X @ theta[: X.shape[1]], Z @ theta[X.shape[1] :]
    log_loss = np.logaddexp(u, v)
    residual = log_loss - target
    size = np.abs(residual)
    loss = np.where(size < _HUBER, residual**2 / (2 * _HUBER), size - _HUBER / 2)
    slope = np.clip(residual / _HUBER, -1, 1) / len(target)
    first = slope * np.exp(u - log_loss)
    return loss.mean(), np.concatenate([X.T @ first, Z.T @ (slope - first)])


def _log_loss(theta: np.ndarray, X: np.ndarray, Z: np.ndarray) -> np.ndarray:
    return np.logaddexp(X @ theta[: X.shape[1]], Z @ theta[X.shape[1] :])


def _starts(law: Law, runs: Sequence[ScalingRun], n: int, generator: np.random.Generator) -> list[np.ndarray]:
    """The second term is flat at a share of the smallest loss; the first is fitted to the rest, and both are shaken."""
    X, Z = law.design(runs)
    losses = np.array([run.loss for run in runs])
    found: list[np.ndarray] = []
    for share in generator.uniform(0.02, 0.98, size=n):
        floor = share * losses.min()
        first = np.linalg.lstsq(X, np.log(losses - floor), rcond=None)[0]
        second = np.zeros(Z.shape[1])
        second[0] = np.log(floor)
        second[1:] = generator.normal(0, 0.3, size=Z.shape[1] - 1)
        # a tilted second term still passes through the floor at the middle of the runs
        second[0] -= Z[:, 1:].mean(0) @ second[1:]
        found.append(np.concatenate([first, second]))
    return found


def _error(fitted: Fit, runs: Sequence[ScalingRun]) -> float:
    losses = np.array([run.loss for run in runs])
    return float(np.abs(np.log(fitted.predict(runs)) - np.log(losses)).mean())


def is_determined(law: Law, runs: Sequence[ScalingRun]) -> bool:
    """Whether the runs are as many and as different as the law has parameters."""
    if not runs:
        return False
    X, Z = law.design(runs)
    n_distinct = len(np.unique(np.concatenate([X, Z], 1), axis=0))
    ranks = tuple(int(np.linalg.matrix_rank(columns)) for columns in (X, Z))
    return n_distinct >= X.shape[1] + Z.shape[1] and ranks == (X.shape[1], Z.shape[1])


def _check(law: Law, runs: Sequence[ScalingRun]) -> None:
    for run in runs:
        numbers = (run.loss, run.compute) if law is COMPUTE else (run.loss, run.n_latents, run.k)
        if not all(np.isfinite(number) and number > 0 for number in numbers):
            raise UserError(f"a law in {law.name} needs losses and settings above 0, got {run}")
    if not is_determined(law, runs):
        n = len(law.first + law.second)
        raise UserError(
            f"a law in {law.name} has {n} parameters, which {len(runs)} runs do not determine; give at least {n} runs "
            "that differ in all it is about"
        )
