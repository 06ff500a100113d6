"""Absorption and splitting by hand, on made examples, and on words of a vocabulary."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from unweave.activations.synthetic import SyntheticConfig, SyntheticData
from unweave.coders import SparseCoder, Wiring, architecture
from unweave.errors import UserError
from unweave.evals.absorption import (
    DEFINITIONS,
    absorbed_fraction,
    absorption,
    absorption_figures,
    class_latents,
    measure_absorption,
)
from unweave.evals.builtin_tasks import builtin_tokens
from unweave.evals.examples import Examples, Reader
from unweave.evals.first_letters import letter_examples, prompted, words_of
from unweave.evals.hierarchy_absorption import CHILD_HOLDS_PARENT, ParentSilence, best_latents, measure_hierarchy
from unweave.evals.pooled import Pooled
from unweave.metrics.ground_truth import DetectedFeatures
from unweave.models.language_model import LanguageModel
from unweave.types import Codes, Document

CONFIG = SyntheticConfig(
    n_features=30, d_model=64, roots=6, branching=2, depth=1, max_probability=0.3, min_probability=0.1
)


@pytest.mark.parametrize(
    ("main", "absorbers", "projection", "expected"),
    [
        (1.0, 0.9, 1.0, 0.0),  # the main latents give all
        (0.2, 0.39, 1.0, 0.0),  # the absorbers give too little
        (0.0, 0.4, 1.0, 1.0),
        (-0.5, 0.5, 1.0, 1.0),
        (0.2, 0.6, 1.0, 0.6 / 0.8),
        (0.5, 0.9, 1.0, 0.5),  # absorbers count up to what is missing: 0.5 of 1
    ],
)
def test_the_absorbed_fraction_by_hand(main: float, absorbers: float, projection: float, expected: float) -> None:
    assert absorbed_fraction(main, absorbers, projection) == pytest.approx(expected)


def test_absorption_of_single_examples_by_hand() -> None:
    """The probe looks along the first axis. Latents: the main one along it, an absorber at cosine 0.6, one across."""
    W_dec = np.array([[2.0, 0.0], [0.6, 0.8], [0.0, 5.0]])
    latents = csr_array(
        np.array([
            [0.5, 0.0, 1.0],  # the main latent gives all of 1
            [0.0, 1.0, 0.0],  # the absorber gives 0.6 of 1: full
            [0.0, 0.5, 9.0],  # it gives 0.3 of 1: too little
            [0.1, 1.0, 0.0],  # the main latent gives 0.2, the absorber 0.6
            [0.0, 0.0, 0.0],  # no latent
            [0.0, 9.0, 0.0],  # the row lies on the other side
        ])
    )  # fmt: skip
    rows = np.array([[1.0, 7.0]] * 5 + [[-1.0, 0.0]])
    found = absorption(rows, latents, W_dec, np.array([3.0, 0.0]), np.array([0]))
    assert found.full.tolist() == [False, True, False, False, False, False]
    np.testing.assert_allclose(found.fraction, [0, 1, 0, 0.75, 0, 0])


def _absorbing(share: float, split: int = 1) -> tuple[Examples, np.ndarray]:
    """Two classes, of which the first has a latent that leaves a ``share`` of its examples to narrower latents.

    Each example has a direction of its own word beside that of its class; the narrow latent of a word writes both.
    """
    generator = np.random.default_rng(7)
    n, n_words = 2400, 80
    word = np.arange(n) // 10 % n_words
    is_first = word < n_words // 2
    axes = np.eye(n_words + 2)
    rows = (
        2.0 * np.where(is_first[:, None], axes[0], axes[1])
        + axes[2 + word]
        + 0.05 * generator.normal(size=(n, n_words + 2))
    )
    absorbed = is_first & (word < share * n_words / 2)
    latents = np.zeros((n, 2 + split + n_words))
    part = np.arange(n) % split
    latents[np.arange(n), part] = 2.0 * (is_first & ~absorbed)
    latents[:, split] = 2.0 * ~is_first
    latents[np.arange(n), split + 2 + word] = 1.0
    own = np.stack([axes[2 + i] + (2 * axes[0] if i < share * n_words / 2 else 0) for i in range(n_words)])
    W_dec = np.concatenate([np.tile(axes[0], (split, 1)), axes[1:2], 0 * axes[:1], own])
    sums = Pooled({"coder": rows}, {"coder": csr_array(latents)})
    labels, documents = np.where(is_first, 0, 1), np.arange(n) // 7
    return Examples("hand", ("a", "b"), sums, labels, documents, documents % 3 == 0), W_dec


def test_the_share_that_narrow_latents_took_is_found() -> None:
    examples, W_dec = _absorbing(0.2)
    found = absorption_figures(examples, "coder", W_dec)
    assert found.details["hand/a/absorption_full"] == pytest.approx(0.2, abs=0.03)
    assert found.details["hand/a/absorption_fraction"] == pytest.approx(0.2, abs=0.03)
    assert found.details["hand/b/absorption_full"] == 0.0
    assert found.figures["absorption_full"] == pytest.approx(found.details["hand/a/absorption_full"] / 2)
    assert found.figures["absorption_row_f1"] > 0.99 and found.figures["absorption_classes"] == 2
    assert set(found.figures) == {definition.name for definition in DEFINITIONS}
    assert all(definition.meaning.endswith(".") for definition in DEFINITIONS)


@pytest.mark.parametrize("split", [1, 2, 4])
def test_a_class_that_is_split_has_as_many_main_latents(split: int) -> None:
    examples, _ = _absorbing(0.0, split)
    found = class_latents(examples, "coder", 0)
    assert found is not None and sorted(found.main.tolist()) == list(range(split))


def test_classes_that_no_probe_tells_do_not_count() -> None:
    examples, W_dec = _absorbing(0.2)
    generator = np.random.default_rng(7)
    drawn = examples._replace(labels=np.where(generator.random(2400) < 0.1, 1, 0))
    noise = Pooled({"coder": generator.normal(size=(2400, 82))}, examples.pooled.latents)
    found = absorption_figures(drawn._replace(pooled=noise), "coder", W_dec)
    assert found.details.keys() <= {f"hand/a/{definition.name}" for definition in DEFINITIONS}
    few = examples._replace(labels=np.where(np.arange(2400) < 2390, 0, 1))
    assert class_latents(few, "coder", 1) is None


def test_words_of_a_vocabulary_are_split_by_their_letters(pylm: LanguageModel, small_coder: SparseCoder) -> None:
    words = words_of(pylm)
    assert len(words) > 1000 and all(word.letters.isalpha() for word in words)
    found = letter_examples(pylm, {"small": small_coder}, per_letter=20)
    assert not set(found.documents[found.is_test]) & set(found.documents[~found.is_test])
    word = next(word for word in words if word.text == " import")
    row = pylm.capture(torch.tensor([[pylm.tokenizer.bos_token_id, word.token]]), small_coder.site)[small_coder.site]
    rows = letter_examples(pylm, {"small": small_coder}, per_letter=1000).pooled.rows["small"]
    assert np.abs(rows - row[0, 1].numpy()).max(1).min() < 1e-3


def test_a_prompt_reads_the_word_where_it_is(pylm: LanguageModel) -> None:
    words = words_of(pylm)[:40]
    sequences, at = prompted(pylm, words, 0)
    assert [sequence[at] for sequence in sequences] == [word.token for word in words]
    text = pylm.tokenizer.decode(sequences[7])
    assert text.count(" has the first letter:") == 11
    assert text.endswith(f"{words[7].text} has the first letter:")


def test_prompts_that_do_not_align_are_told(pylm: LanguageModel, gpt2: LanguageModel) -> None:
    words = words_of(pylm)[:12]
    broken = [*words, words[0]._replace(text="unweaving knots")]
    with pytest.raises(UserError, match=r"have \d+ and \d+ tokens, and words must be at the same place; set prompt"):
        prompted(pylm, broken, 0)
    with pytest.raises(UserError, match="does not hold its token where it should"):
        prompted(pylm, [word._replace(token=7) for word in words], 0)
    with pytest.raises(UserError, match="more than the 63"):
        prompted(gpt2, words_of(gpt2), 0)


def test_labelled_tokens_of_the_embedded_model_have_all_figures(
    pylm: LanguageModel, small_coder: SparseCoder, documents: list[Document]
) -> None:
    task = builtin_tokens("token_class", [doc for doc in documents if len(doc.text) < 8000], 40)
    found = measure_absorption(Reader(pylm, {"small": small_coder}), task)["small"]
    assert found.figures["absorption_classes"] >= 3
    assert 0 <= found.figures["absorption_full"] <= found.figures["absorption_row_f1"] <= 1
    assert found.standard_errors["absorption_fraction"] >= 0


def _true_coder(data: SyntheticData, absorb: bool) -> SparseCoder:
    """A latent for each feature; the children hold their parents if ``absorb``, whose latents are silent then."""
    cls = architecture("relu")
    directions = data.features_FD
    config = cls.Config(n_latents=len(directions), variant="april_2024", centre=False)
    coder = cls(config, Wiring.sae(64, "synthetic"))
    inverse = torch.linalg.pinv(directions).T
    has_parent = data.parents_F >= 0
    parents = data.parents_F.clamp(min=0)
    with torch.no_grad():
        coder.W_dec.copy_(directions)
        coder.W_enc.copy_(inverse)
        if absorb:
            coder.W_dec[has_parent] += 0.5 * directions[parents[has_parent]]
            for child in has_parent.nonzero().flatten():
                coder.W_enc[parents[child]] -= 9 * inverse[child]
        coder.b_enc.fill_(-0.01)
    return coder.requires_grad_(False)


def test_a_hierarchy_tells_coders_that_absorb_from_those_that_do_not() -> None:
    data = SyntheticData(CONFIG)
    found = measure_hierarchy(
        data, {"true": _true_coder(data, False), "absorbing": _true_coder(data, True)}, n_rows=5000
    )
    true, absorbing = found["true"].figures, found["absorbing"].figures
    assert true["parent_absorbed"] == pytest.approx(0.0, abs=0.01)
    assert absorbing["parent_absorbed"] == pytest.approx(1.0, abs=0.01)
    assert true["child_holds_parent"] < 0.3 < absorbing["child_holds_parent"]
    names = {definition.name for definition in (*ParentSilence.definitions, CHILD_HOLDS_PARENT)}
    assert set(true) == names and set(found["true"].standard_errors) < names


def _codes(rows: list[list[float]]) -> Codes:
    dense = torch.tensor(rows)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), (dense != 0).sum(1).cumsum(0)])
    return Codes(dense[dense != 0], dense.nonzero()[:, 1], offsets, dense.shape[1])


def test_silence_of_parents_by_hand() -> None:
    """Feature 0 is the parent of 1; latent 1 stands for 0. Alone on rows 0, 1, 2; with its child on rows 3, 4."""
    metric = ParentSilence(torch.tensor([1, 0]), torch.tensor([-1, 0]))
    features = [[1.0, 0], [1, 0], [1, 0], [1, 1], [1, 1], [0, 0]]
    latents = [[0.0, 1], [0, 1], [0, 0], [1, 0], [0, 1], [1, 0]]
    metric.update(DetectedFeatures(_codes(latents), _codes(features)))
    figures = metric.compute()
    assert figures == pytest.approx(
        {"parent_silent_with_child": 1 / 2, "parent_silent_alone": 1 / 3, "parent_absorbed": 1 / 2 - 1 / 3}
    )


def test_the_latent_of_a_feature_is_the_nearest_in_angle() -> None:
    W_dec = torch.tensor([[9.0, 9.0], [-0.1, 0.0], [0.0, 1.0]])
    assert best_latents(W_dec, torch.eye(2)).tolist() == [1, 2]


def test_data_without_a_hierarchy_and_coders_of_another_width_are_told() -> None:
    data = SyntheticData(CONFIG)
    with pytest.raises(UserError, match=r"have no parents; set synthetic\.roots"):
        measure_hierarchy(SyntheticData(SyntheticConfig()), {})
    cls = architecture("relu")
    with pytest.raises(UserError, match="coder 'a' is of width 7, the rows of 64"):
        measure_hierarchy(data, {"a": cls(cls.Config(n_latents=3), Wiring.sae(7))})
