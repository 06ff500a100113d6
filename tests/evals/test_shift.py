"""SHIFT's score by hand, and on rows whose spurious latents are known."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from unweave.evals.examples import Examples
from unweave.evals.pooled import Pooled
from unweave.evals.shift import definitions, shift_figures, told_of
from unweave.evals.tasks import CrossedTexts, LabelledTexts


def test_a_classifier_that_follows_the_spurious_label_by_hand() -> None:
    """Of two texts in each combination it says the spurious label, save on one, where both are yes."""
    target, spurious = np.array([0, 0, 0, 0, 1, 1, 1, 1], dtype=bool), np.array([0, 0, 1, 1, 0, 0, 1, 1], dtype=bool)
    said = spurious.copy()
    said[7] = False
    found = told_of(said, target, spurious, np.ones((1, 8)))
    assert {name: value.tolist() for name, value in found.items()} == {
        "target": [3 / 8],
        "spurious": [2 * 7 / 8 - 1],
        "worst": [0.0],
    }


def test_without_the_spurious_latents_the_classifier_is_as_good_as_the_oracle() -> None:
    generator = np.random.default_rng(7)
    n = 800
    target, spurious = np.arange(n) % 2, np.arange(n) // 2 % 2
    weak = (2 * target - 1) + 0.3 * generator.normal(size=n)
    latents = np.stack([weak.clip(0), (-weak).clip(0), 5.0 * spurious, 5.0 * (1 - spurious)], axis=1)
    W_dec = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    is_test = np.arange(n) % 8 < 4
    texts = tuple(map(str, range(n)))
    sides = [LabelledTexts("t", texts, label, ("no", "yes"), np.arange(n), is_test) for label in (target, spurious)]
    sums = Pooled({"coder": latents @ W_dec}, {"coder": csr_array(latents)})
    examples = Examples("t", ("no", "yes"), sums, target, np.arange(n), is_test)
    found = shift_figures([(examples, CrossedTexts(*sides))], "coder", W_dec, counts=(2,)).figures
    assert set(found) == {definition.name for definition in definitions((2,))}
    assert all(definition.meaning.endswith(".") for definition in definitions())
    assert found["shift_target_before"] < 0.9 and found["shift_spurious_before"] > 0.2
    for case in ("2", "oracle"):
        assert found[f"shift_target_{case}"] > 0.97 and found[f"shift_worst_{case}"] > 0.9
        assert found[f"shift_spurious_{case}"] < 0.05
    assert found["shift_retrained_2"] == pytest.approx(found["shift_target_oracle"], abs=0.03)
