"""Probes are the optimum that they say they are, and nothing of what is measured chooses them."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from unweave.errors import UserError
from unweave.evals.probes import auc, aucs, f1, fit, fit_validated, mean_difference, one_against_rest, sparse_weights


def _data(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(7)
    x = generator.normal(size=(n, 5)) * [1, 100, 0.01, 3, 1] + [0, 1000, 0, 2, 5]
    x[:, 4] = 5.0
    return x, x[:, 0] + 0.5 * generator.normal(size=n) > 0.2


@pytest.mark.parametrize("strength", [0.01, 1.0])
@pytest.mark.parametrize("kind", [np.asarray, csr_array])
def test_a_probe_is_where_the_gradient_of_its_objective_is_zero(strength: float, kind: type) -> None:
    x, y = _data()
    probe = fit(kind(x), y, strength=strength)
    spread = np.where(x.std(0) > 0, x.std(0), 1.0)
    margin = np.where(y, 1.0, -1.0)
    pull = margin / (1 + np.exp(margin * (x @ probe.weights + probe.bias)))
    gradient = probe.weights * spread - strength * ((x - x.mean(0)) / spread).T @ pull
    assert np.abs(gradient).max() < 0.02 * strength * len(x)
    assert abs(pull.sum()) < 0.005 * len(x)


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order() -> None:
    generator = np.random.default_rng(7)
    logits, y = generator.integers(0, 9, size=63).astype(float), generator.random(63) < 0.3
    weights = generator.integers(0, 3, size=(4, 63)).astype(float)
    weights[3, y] = 0
    found = aucs(logits, y, weights)
    for r in range(3):
        pairs = [
            (weights[r, i] * weights[r, j], (logits[i] > logits[j]) + 0.5 * (logits[i] == logits[j]))
            for i in np.flatnonzero(y) for j in np.flatnonzero(~y)
        ]  # fmt: skip
        assert found[r] == pytest.approx(sum(w * won for w, won in pairs) / sum(w for w, _ in pairs))
    assert np.isnan(found[3]), "no positive example has weight"
    assert auc(np.array([3.0, 1.0]), np.array([True, False])) == 1.0


def test_f1_by_hand() -> None:
    said, true = np.array([1, 1, 1, 0, 0], dtype=bool), np.array([1, 0, 1, 1, 0], dtype=bool)
    assert f1(said, true) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert f1(~said & said, true & ~true) == 0.0


def test_difference_of_means_of_dense_and_sparse_columns() -> None:
    x, y = np.array([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0]]), np.array([True, True, False])
    assert mean_difference(x, y).tolist() == mean_difference(csr_array(x), y).tolist() == [2.0, 0.0]


@pytest.mark.parametrize("n", [10, 63, 300])
def test_strength_is_chosen_on_what_was_not_learned_from(n: int) -> None:
    """Of five columns one tells the classes; with labels that are drawn, validation finds nothing."""
    generator = np.random.default_rng(7)
    x, y = generator.normal(size=(n, 5)), np.arange(n) % 2 == 0
    x[:, 3] += 6 * y
    probe, validated = fit_validated(x, y, generator)
    assert validated > 0.9 and np.argmax(probe.weights) == 3
    found = [fit_validated(generator.normal(size=(n, 5)), y, generator)[1] for _ in range(3)]
    assert np.mean(found) < 0.8
    two, none = fit_validated(x[:2], y[:2], generator)
    assert np.isnan(none) and two.logits(x[:2])[0] > 0


def test_an_l1_probe_leaves_most_columns_out() -> None:
    generator = np.random.default_rng(7)
    x = csr_array(np.abs(generator.normal(size=(200, 63))))
    weights = sparse_weights(x, x.toarray()[:, 5] > 0.6, 0.05)
    assert weights.argmax() == 5 and (weights != 0).sum() < 30


def test_a_class_stands_against_as_many_of_the_others_drawn_evenly() -> None:
    labels = np.array([0] * 6 + [1] * 50 + [2] * 3 + [3] * 50)
    chosen = one_against_rest(labels, 0, np.random.default_rng(0))
    assert np.bincount(labels[chosen]).tolist() == [6, 2, 2, 2] and (np.diff(chosen) > 0).all()
    chosen = one_against_rest(labels, 1, np.random.default_rng(0))
    assert np.bincount(labels[chosen]).tolist() == [6, 50, 3, 41]


def test_a_probe_with_one_label_is_told() -> None:
    with pytest.raises(UserError, match="a probe needs examples of two classes, got 7 of one"):
        fit(np.ones((7, 1)), np.ones(7, dtype=bool))
