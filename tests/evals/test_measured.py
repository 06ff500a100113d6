"""Errors by leaving out blocks of documents, against those worked out by hand."""

import numpy as np
import pytest

from unweave.evals.measured import Weightings, mean_of_known, weighted_mean


def test_the_error_of_a_mean_over_equal_blocks_is_the_usual_one() -> None:
    """Five blocks of four examples: the jackknife of the mean is the standard error of the five block means."""
    values = np.random.default_rng(7).normal(size=20)
    documents = np.repeat([3, 70, 5, 9, 63], 4)
    weightings = Weightings.of([documents])
    weights = weightings.weights(documents)
    assert weights.shape == (6, 20)
    found = weightings.measured({"mean": weighted_mean(values, weights)}, 20)
    means = values.reshape(5, 4).mean(1)
    assert found.figures["mean"] == pytest.approx(values.mean())
    assert found.standard_errors["mean"] == pytest.approx(means.std(ddof=1) / 5**0.5)


def test_documents_of_one_block_tell_no_error() -> None:
    documents = np.array([1, 65, 129])
    weightings = Weightings.of([documents])
    found = weightings.measured({"mean": weighted_mean(np.ones(3), weightings.weights(documents))}, 3)
    assert found.figures == {"mean": 1.0} and found.standard_errors == {}


def test_a_block_is_left_out_of_all_tasks_at_once() -> None:
    first, second = np.array([0, 1, 1]), np.array([1, 2])
    weightings = Weightings.of([first, second])
    assert weightings.weights(first).tolist() == [[1, 1, 1], [0, 1, 1], [1, 0, 0], [1, 1, 1]]
    assert weightings.weights(second).tolist() == [[1, 1], [1, 1], [0, 1], [1, 0]]


def test_means_of_nothing_have_no_value_and_are_left_out_of_others() -> None:
    assert np.isnan(weighted_mean(np.array([1.0]), np.array([[0.0]])))
    found = mean_of_known([np.array([1.0, np.nan, np.nan]), np.array([3.0, 5.0, np.nan])])
    assert found.tolist()[:2] == [2.0, 5.0] and np.isnan(found[2])
