"""Probing figures on examples made by hand, and on the embedded model."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from unweave.coders import SparseCoder
from unweave.evals import probing, sae_probes
from unweave.evals.builtin_tasks import builtin_texts, builtin_tokens
from unweave.evals.controls import identity_coder
from unweave.evals.examples import Examples, Reader
from unweave.evals.pooled import Pooled
from unweave.evals.probing import measure_probing, one_class_each, probing_figures
from unweave.evals.sae_probes import measure_sae_probes, normalised_difference, sae_probe_figures
from unweave.models.language_model import LanguageModel
from unweave.types import Document

N = 600


def _examples(n_classes: int = 3) -> Examples:
    """Rows and latents of noise; latent ``i`` of coder ``perfect`` is 1 on class ``i``, save on one text in ten."""
    generator = np.random.default_rng(7)
    labels = np.arange(N) % n_classes
    noise = generator.random((N, 20)) * (generator.random((N, 20)) < 0.3)
    perfect = noise.copy()
    perfect[:, :n_classes] = np.eye(n_classes)[labels] * 0.9
    wrong = generator.random(N) < 0.1
    perfect[wrong, :n_classes] = 0.9 - perfect[wrong, :n_classes]
    rows = generator.normal(size=(N, 8))
    sums = Pooled({"perfect": rows, "noise": rows}, {"perfect": csr_array(perfect), "noise": csr_array(noise)})
    names = tuple("abcdefg"[:n_classes])
    documents = np.arange(N) // 6
    return Examples("hand", names, sums, labels, documents, np.arange(N) // 6 % 4 == 0)


def test_a_latent_that_is_the_class_is_as_accurate_as_it_is_right() -> None:
    examples = _examples(2)
    found = probing_figures([examples], "perfect")
    check = np.flatnonzero(examples.is_test)
    right = examples.pooled.latents["perfect"].toarray()[check, 1] == 0.9 * examples.labels[check]
    assert found.figures["probe_k1"] == pytest.approx(right.mean())
    assert found.n == len(check) == N // 4
    assert found.standard_errors["probe_k1"] == pytest.approx((0.1 * 0.9 / 150) ** 0.5, rel=0.4)


def test_latents_and_rows_of_noise_are_at_chance() -> None:
    found = probing_figures([_examples(), _examples(2)], "noise")
    for name in ("probe_k1", "probe_k5", "probe_row", "probe_codes"):
        assert found.figures[name] == pytest.approx(0.5, abs=4 * found.standard_errors[name] + 0.02)


def test_each_class_stands_against_as_many_of_the_others_on_each_side() -> None:
    examples = _examples(5)
    problems = list(one_class_each(examples, 0))
    assert [problem.name for problem in problems] == list("abcde")
    for problem in problems:
        assert problem.learn_is_positive.mean() == problem.check_is_positive.mean() == 0.5
        assert not set(problem.learn) & set(problem.check)
    assert len(list(one_class_each(_examples(2), 0))) == 1
    assert len(list(one_class_each(_examples(2), 0, both=True))) == 2


def test_what_is_measured_on_chooses_nothing() -> None:
    """With all labels to measure on turned round, the same latents and probes are right where they were wrong."""
    examples = _examples(2)
    turned = examples._replace(labels=np.where(examples.is_test, 1 - examples.labels, examples.labels))
    found = [
        probing_figures([each], "perfect").figures
        | sae_probe_figures([each], "perfect", ks=(5,), regimes=("normal", "imbalance")).figures
        for each in (examples, turned)
    ]
    for name in ("probe_k1", "probe_k5", "probe_row", "probe_codes", "auc_normal_k5", "auc_imbalance_row"):
        assert found[0][name] + found[1][name] == pytest.approx(1.0)


def test_a_probe_on_a_perfect_latent_adds_to_a_row_of_noise() -> None:
    found = sae_probe_figures([_examples(2)], "perfect", ks=(1,))
    assert set(found.figures) == {definition.name for definition in sae_probes.definitions((1,))}
    assert found.figures["auc_normal_k1"] == pytest.approx(0.9, abs=0.06)
    assert found.figures["auc_normal_added"] == found.figures["auc_normal_k1"] - found.figures["auc_normal_row"] > 0.2
    sizes = {name.split("/")[3] for name in found.details if "/scarcity/" in name}
    assert sizes == {"2", "4", "8", "16", "32", "64", "128", "256"}
    shares = {name.split("/")[3] for name in found.details if "/imbalance/" in name}
    assert shares == {"5%", "25%", "75%", "95%"}


def test_latents_are_ranked_in_units_of_their_own_activation() -> None:
    latents = csr_array(np.array([[100.0, 1.0, 0.0], [0.0, 1.0, 0.0], [100.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    found = normalised_difference(latents, np.array([True, True, False, False]))
    assert found.tolist() == [0.0, 1.0, 0.0]


def test_every_figure_has_a_definition() -> None:
    found = probing_figures([_examples()], "noise", ks=(1, 2))
    assert set(found.figures) == {definition.name for definition in probing.definitions((1, 2))}


def test_a_coder_that_loses_nothing_has_the_probes_of_the_row(
    pylm: LanguageModel, documents: list[Document], small_coder: SparseCoder
) -> None:
    """All latents of the identity tell what the row tells; its best latent is one half of the row's best dimension."""
    coders = {"identity": identity_coder(small_coder.wiring), "small": small_coder}
    short = [doc for doc in documents if len(doc.text) < 15_000]
    tasks = [builtin_texts("piece", short, 24), builtin_tokens("in_string", short, 16)]
    found = measure_probing(Reader(pylm, coders), tasks)
    identity, small = found["identity"].figures, found["small"].figures
    assert identity["probe_row"] == small["probe_row"] > 0.75
    assert identity["probe_codes"] == pytest.approx(identity["probe_row"], abs=0.08)
    assert 0.5 < small["probe_k1"] < small["probe_row"]
    last = measure_sae_probes(Reader(pylm, {"small": small_coder}), tasks[:1], regimes=("normal",))["small"]
    assert set(last.figures) == {f"auc_normal_{name}" for name in ("k1", "k5", "row", "added")}
    assert last.figures["auc_normal_row"] > 0.7
