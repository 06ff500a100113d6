"""Linear probes: logistic regression on the columns of examples, and how well it tells two classes apart.

A probe minimises |w|^2 / 2 + C sum_i log(1 + exp(-y_i (w.x_i + b))) (the ridge penalty), on columns divided by their
spread in the texts that it learns from, so that C means the same for rows and for latents. The weights that are
returned belong to the columns as they came.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from unweave.errors import UserError

STRENGTHS = tuple(float(c) for c in np.logspace(5, -5, 10))
"""Values of C among which validation chooses (Kantamneni et al. 2025, arXiv 2502.16681)."""
Columns = np.ndarray | csr_array
"""Columns of examples [N, C], dense or sparse."""


class Probe(NamedTuple):
    """A direction and a bias; positive logits are for the positive class."""

    weights: Float[np.ndarray, " C"]
    bias: float

    def logits(self, columns: Columns) -> Float[np.ndarray, " N"]:
        return columns @ self.weights + self.bias


def fit(
    columns: Columns, is_positive_N: Bool[np.ndarray, " N"], *, strength: float = 1.0, balanced: bool = False
) -> Probe:
    """A probe that learned from these examples; ``strength`` is C, ``balanced`` gives both classes equal weight."""
    from sklearn.linear_model import LogisticRegression

    check_two_labels(is_positive_N)
    model: Any = LogisticRegression(C=strength, max_iter=1000, class_weight="balanced" if balanced else None)
    scaled, mean_C, spread_C = _scaled(columns)
    _train(model, scaled, is_positive_N)
    weights_C = model.coef_[0] / spread_C
    return Probe(weights_C, float(model.intercept_[0] - weights_C @ mean_C))


def sparse_weights(columns: Columns, is_positive_N: Bool[np.ndarray, " N"], penalty: float) -> Float[np.ndarray, " C"]:
    """Weights of scaled columns under ``penalty * |w|_1`` beside the mean loss, both classes at equal weight."""
    from sklearn.linear_model import LogisticRegression

    check_two_labels(is_positive_N)
    strength = 1 / (penalty * len(is_positive_N))
    model: Any = LogisticRegression(
        C=strength, l1_ratio=1, solver="liblinear", max_iter=200, class_weight="balanced", random_state=0
    )
    _train(model, _scaled(columns)[0], is_positive_N)
    return model.coef_[0]


def fit_validated(
    columns: Columns, is_positive_N: Bool[np.ndarray, " N"], generator: np.random.Generator
) -> tuple[Probe, float]:
    """A probe whose C gave the best AUC on parts that it did not learn from, and that AUC (NaN where none fit in).

    Up to 12 examples: one of each class left out in turn. Under 128: six parts. Else a fifth of them, at most 100.
    """
    splits = _validation_splits(is_positive_N, generator)
    if not splits:
        return fit(columns, is_positive_N), float("nan")
    found = []
    for strength in STRENGTHS:
        parts = []
        for learn, check in splits:
            probe = fit(columns[learn], is_positive_N[learn], strength=strength)
            parts.append(auc(probe.logits(columns[check]), is_positive_N[check]))
        found.append(float(np.mean(parts)))
    best = int(np.argmax(found))
    return fit(columns, is_positive_N, strength=STRENGTHS[best]), found[best]


def mean_difference(columns: Columns, is_positive_N: Bool[np.ndarray, " N"]) -> Float[np.ndarray, " C"]:
    """Mean of each column over the positive examples less that over the others."""
    return np.asarray(columns[is_positive_N].mean(axis=0) - columns[~is_positive_N].mean(axis=0)).ravel()


def auc(logits_N: Float[np.ndarray, " N"], is_positive_N: Bool[np.ndarray, " N"]) -> float:
    """Area under the ROC curve: how often a positive example has the larger logit, ties counting half."""
    return float(aucs(logits_N, is_positive_N, np.ones((1, len(logits_N))))[0])


def aucs(
    logits_N: Float[np.ndarray, " N"], is_positive_N: Bool[np.ndarray, " N"], weights_RN: Float[np.ndarray, "R N"]
) -> Float[np.ndarray, " R"]:
    """The same with weights of the examples; NaN where a class has no weight."""
    order = np.argsort(logits_N, kind="stable")
    _, group_N = np.unique(logits_N[order], return_inverse=True)
    starts = np.flatnonzero(np.diff(group_N, prepend=-1))
    positive = np.add.reduceat(weights_RN[:, order] * is_positive_N[order], starts, axis=1)
    negative = np.add.reduceat(weights_RN[:, order] * ~is_positive_N[order], starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    with np.errstate(invalid="ignore"):
        return (positive * below).sum(1) / (positive.sum(1) * negative.sum(1))


def f1(said_N: Bool[np.ndarray, " N"], true_N: Bool[np.ndarray, " N"]) -> float:
    """2 TP / (2 TP + FP + FN); 0 where nothing is said and nothing is true."""
    return float(2 * (said_N & true_N).sum() / max(1, said_N.sum() + true_N.sum()))


def check_two_labels(is_positive_N: Bool[np.ndarray, " N"]) -> None:
    """Raise ``UserError`` where there is only one class to learn from."""
    if is_positive_N.all() or not is_positive_N.any():
        raise UserError(f"a probe needs examples of two classes, got {len(is_positive_N)} of one; check the labels")


def one_against_rest(
    labels_N: Int[np.ndarray, " N"], label: int, generator: np.random.Generator
) -> Int[np.ndarray, " M"]:
    """Places of the class, and of as many of the others, drawn evenly from each class; ascending."""
    own = np.flatnonzero(labels_N == label)
    others = [generator.permutation(np.flatnonzero(labels_N == other)) for other in np.unique(labels_N)]
    turns = [(turn, number) for places in others for turn, number in enumerate(places) if labels_N[number] != label]
    rest = np.array([number for _, number in sorted(turns, key=lambda pair: pair[0])], dtype=np.int64)
    n = min(len(own), len(rest))
    own = own if len(own) == n else np.sort(generator.permutation(own)[:n])
    return np.sort(np.concatenate([own, rest[:n]]))


def _validation_splits(
    is_positive_N: Bool[np.ndarray, " N"], generator: np.random.Generator
) -> Sequence[tuple[np.ndarray, np.ndarray]]:
    """Pairs of places to learn from and places to check on, each with both classes."""
    n = len(is_positive_N)
    places = np.arange(n)
    positive, negative = (generator.permutation(np.flatnonzero(is_positive_N == side)) for side in (True, False))
    if min(len(positive), len(negative)) < 2:
        return ()
    if n <= 12:
        parts = [np.array([one, other]) for one in positive for other in negative]
    elif n < 128:
        n_parts = min(6, len(positive), len(negative))
        parts = [np.concatenate([positive[i::n_parts], negative[i::n_parts]]) for i in range(n_parts)]
    else:
        share = min(0.2, 100 / n)
        parts = [np.concatenate([side[: max(1, round(share * len(side)))] for side in (positive, negative)])]
    return [(np.setdiff1d(places, part), np.sort(part)) for part in parts]


def _train(model: Any, columns: Columns, is_positive_N: Bool[np.ndarray, " N"]) -> None:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # with a large C on classes that a plane divides, the weights grow for ever; where they stop, the plane divides
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(columns, is_positive_N)


def _scaled(columns: Columns) -> tuple[Columns, Float[np.ndarray, " C"], Float[np.ndarray, " C"]]:
    """Columns of unit spread, and the mean and the spread that were taken away.

    Constant columns keep theirs. Sparse columns keep their mean: the bias makes up for it, and they stay sparse.
    """
    mean_C = np.asarray(columns.mean(axis=0)).ravel()
    square_C = np.asarray((columns * columns).mean(axis=0)).ravel()
    variance_C = square_C - mean_C**2
    spread_C = np.sqrt(np.where(variance_C > 1e-12 * square_C, variance_C, 1.0))
    if not isinstance(columns, csr_array):
        return (columns - mean_C) / spread_C, mean_C, spread_C
    scaled = csr_array(columns.multiply(1 / spread_C))
    scaled.indices, scaled.indptr = scaled.indices.astype(np.int32), scaled.indptr.astype(np.int32)
    return scaled, np.zeros_like(mean_C), spread_C
