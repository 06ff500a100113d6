"""SCR and TPP: the shortcut equals encoding every token again, and coders do as the theory says."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from unweave.coders import Port, SparseCoder, Wiring, architecture
from unweave.errors import UserError
from unweave.evals import scr, tpp
from unweave.evals.ablation import ablate, decoder, effects, usable_counts, without_latents
from unweave.evals.builtin_tasks import builtin_crossed, builtin_texts
from unweave.evals.controls import identity_coder, random_coder
from unweave.evals.examples import Examples, Reader
from unweave.evals.pooled import Pooled, content_sums, pooled, token_sequences
from unweave.evals.probes import Probe, fit
from unweave.evals.scr import balanced_places, gained_back, measure_scr, scr_figures
from unweave.evals.tasks import CrossedTexts, LabelledTexts
from unweave.evals.tpp import measure_tpp, tpp_figures
from unweave.models.language_model import LanguageModel
from unweave.types import Document

COUNTS = (1, 2, 5, 40)


def _encoded_again(model: LanguageModel, coder: SparseCoder, texts: tuple[str, ...], latents: np.ndarray) -> np.ndarray:
    """Each text alone: every token encoded, some latents set to 0, the error kept, the mean taken."""
    rows = []
    for sequence in token_sequences(model, texts):
        tokens = torch.from_numpy(sequence)[None]
        x = model.capture(tokens, coder.site)[coder.site][0]
        kept = content_sums(model, [sequence], "mean").positions
        ablated = without_latents(coder, x[torch.from_numpy(kept)], torch.from_numpy(latents))
        rows.append(ablated.double().mean(0).numpy())
    return np.array(rows)


def test_the_shortcut_equals_encoding_every_token_again(
    pylm: LanguageModel, small_coder: SparseCoder, documents: list[Document]
) -> None:
    task = builtin_texts("piece", documents, 6)
    found = pooled(pylm, {"small": small_coder}, task.texts)
    rows, latents = found.rows["small"], found.latents["small"]
    probes = [fit(rows, task.labels == label) for label in range(3)]
    ranked = np.argsort(-np.asarray(latents.sum(axis=0)).ravel())
    ablated = ablate(probes, rows, latents, decoder(small_coder), ranked, COUNTS)
    for n in COUNTS:
        again = _encoded_again(pylm, small_coder, task.texts, ranked[:n])
        assert np.abs(again - rows).max() > 0.1, "something was taken out"
        expected = np.stack([probe.logits(again) for probe in probes], axis=1)
        assert np.abs(ablated.after[n] - expected).max() < 1e-5 * np.abs(expected).max()


def test_latents_of_the_identity_are_neurons(pylm: LanguageModel, small_coder: SparseCoder) -> None:
    """Both halves of a dimension taken out leave a row whose dimension is 0."""
    texts = ("def f(x): return x", "The bird in the corner.")
    coder = identity_coder(small_coder.wiring)
    found = pooled(pylm, {"identity": coder}, texts)
    rows, width = found.rows["identity"], small_coder.d_model
    probe = Probe(np.random.default_rng(7).normal(size=width), 0.5)
    ranked = np.array([3, 3 + width, 100, 100 + width])
    ablated = ablate([probe], rows, found.latents["identity"], decoder(coder), ranked, (2, 4))
    for n, dimensions in ((2, [3]), (4, [3, 100])):
        expected = rows.copy()
        expected[:, dimensions] = 0
        np.testing.assert_allclose(ablated.after[n][:, 0], probe.logits(expected), rtol=1e-6)


def test_the_effect_of_a_latent_by_hand() -> None:
    latents = csr_array(np.array([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]]))
    W_dec = np.array([[1.0, 2.0], [-1.0, 0.0]])
    found = effects(Probe(np.array([3.0, 1.0]), 9.0), latents, np.array([True, True, False]), W_dec)
    assert found.tolist() == [1.0 * 5.0, (0.5 - 3.0) * -3.0]


def _perfect(n_classes: int = 10, n: int = 600) -> tuple[Examples, np.ndarray]:
    """Rows that are sums of a class direction and another direction, each with a latent of its own."""
    generator = np.random.default_rng(7)
    labels = np.arange(n) % n_classes
    noise = 0.1 * generator.random((n, 3))
    latents = np.concatenate([np.eye(n_classes)[labels], noise], axis=1)
    W_dec = np.linalg.qr(generator.normal(size=(15, 15)))[0][: n_classes + 3]
    sums = Pooled({"coder": latents @ W_dec}, {"coder": csr_array(latents)})
    names = tuple("abcdefghij"[:n_classes])
    return Examples("hand", names, sums, labels, np.arange(n), np.arange(n) % 30 < 10), W_dec


def test_latents_that_are_the_classes_bring_their_own_probe_to_chance_and_no_other() -> None:
    examples, W_dec = _perfect()
    found = tpp_figures([examples], "coder", W_dec, counts=(1, 2)).figures
    assert found["tpp_intended_1"] == pytest.approx(0.5, abs=0.02)
    assert found["tpp_unintended_1"] == pytest.approx(0.0, abs=0.02)
    assert found["tpp_1"] == found["tpp_intended_1"] - found["tpp_unintended_1"]


def test_tpp_by_hand() -> None:
    """Two classes along one line, 3 and 0: without its latent the first is at 0, the other has none to take out.

    Both probes are right of all texts, and of half once the latent of the first is gone. The latent has no positive
    effect on the second class, which loses none: A_0 - A_00 = 1/2, A_1 - A_01 = 1/2, A_1 - A_11 = 0, A_0 - A_10 = 0.
    """
    labels = np.array([0, 1] * 8)
    latents = 3.0 - 3.0 * labels[:, None]
    sums = Pooled({"coder": latents}, {"coder": csr_array(latents)})
    examples = Examples("hand", ("a", "b"), sums, labels, np.arange(16), np.arange(16) >= 8)
    found = tpp_figures([examples], "coder", np.ones((1, 1)), counts=(1,)).figures
    assert found == {"tpp_intended_1": 0.25, "tpp_unintended_1": 0.25, "tpp_1": 0.0}


def _crossed() -> tuple[Examples, CrossedTexts, np.ndarray]:
    """A weak direction of the target and a strong one of the spurious label, with a latent each."""
    generator = np.random.default_rng(7)
    n = 800
    target, spurious = np.arange(n) % 2, np.arange(n) // 2 % 2
    weak = (2 * target - 1) + 0.3 * generator.normal(size=n)
    latents = np.stack([weak.clip(0), (-weak).clip(0), 5.0 * spurious, 5.0 * (1 - spurious)], axis=1)
    W_dec = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    sums = Pooled({"coder": latents @ W_dec}, {"coder": csr_array(latents)})
    is_test = np.arange(n) % 8 < 4
    texts = tuple(map(str, range(n)))
    sides = [LabelledTexts("t", texts, label, ("no", "yes"), np.arange(n), is_test) for label in (target, spurious)]
    return Examples("t", ("no", "yes"), sums, target, np.arange(n), is_test), CrossedTexts(*sides), W_dec


def test_taking_out_the_spurious_latents_gives_the_probe_its_accuracy_back() -> None:
    examples, task, W_dec = _crossed()
    found = scr_figures([(examples, task)], "coder", W_dec, counts=(2,))
    biased, oracle = found.details["t against t/biased"], found.details["t against t/oracle"]
    assert oracle > 0.99 and biased < oracle - 0.1
    assert found.figures["scr_2"] == pytest.approx(1.0, abs=0.1)


def test_texts_of_all_combinations_are_equally_frequent() -> None:
    _, task, _ = _crossed()
    uneven = LabelledTexts("u", *[task.spurious.texts], np.minimum(np.arange(800) % 5, 1), ("no", "yes"),
                           task.target.documents, task.target.is_test)  # fmt: skip
    learn, check = balanced_places(CrossedTexts(task.target, uneven))
    for places in (learn, check):
        cells = 2 * task.target.labels[places] + uneven.labels[places]
        assert np.bincount(cells).tolist() == [len(places) // 4] * 4 and len(places) > 0


def test_what_was_gained_back_by_hand() -> None:
    before, after, oracle = (np.array(values) for values in ([0.5, 0.6, 0.7], [0.8, 0.5, 0.9], [0.9, 0.8, 0.7]))
    np.testing.assert_allclose(gained_back(before, after, oracle), [0.75, -0.5, 0.0])


def test_suites_run_on_the_embedded_model_with_floors(
    pylm: LanguageModel, small_coder: SparseCoder, documents: list[Document]
) -> None:
    coders = {"small": small_coder, "random": random_coder(small_coder.wiring, 63, 7.0, small_coder.b_dec)}
    near = [doc for doc in documents if doc.name.startswith(("idlelib", "email")) and len(doc.text) < 15_000]
    coders["wider"] = random_coder(small_coder.wiring, 640, 7.0, small_coder.b_dec)
    perturbed = measure_tpp(Reader(pylm, coders), [builtin_texts("package", near, 12)], counts=(2, 20, 500))
    removed = measure_scr(Reader(pylm, coders), builtin_crossed(near, 9)[:1], counts=(2, 20, 500))
    for found, module in ((perturbed, tpp), (removed, scr)):
        for name, measured in found.items():
            counts = (2, 20, 500) if name == "wider" else (2, 20)
            expected = {definition.name for definition in module.definitions(counts)}
            assert set(measured.figures) == set(measured.standard_errors) == expected, "63 latents have no 500"
            assert all(abs(value) <= 1.5 for value in measured.figures.values())
    assert all(definition.meaning.endswith(".") for module in (tpp, scr) for definition in module.definitions())


def test_counts_that_no_coder_has_are_told(small_coder: SparseCoder) -> None:
    with pytest.raises(UserError, match="from 1 to 63, got 0, 64"):
        usable_counts((0, 64), small_coder)
    assert usable_counts((5, 64, 2), small_coder) == (2, 5)


def test_a_coder_that_writes_elsewhere_is_told(gpt2: LanguageModel, documents: list[Document]) -> None:
    ports = [Port(site, gpt2.width(site)) for site in ("layers.1.mlp_in", "layers.1.mlp_out")]
    cls = architecture("relu")
    coders: Mapping[str, SparseCoder] = {"a": cls(cls.Config(n_latents=7), Wiring.transcoder(*ports))}
    with pytest.raises(UserError, match="coder 'a' is a transcoder; ablating latents needs"):
        measure_tpp(Reader(gpt2, coders), [])
    with pytest.raises(UserError, match="coder 'a' is a transcoder; ablating latents needs"):
        measure_scr(Reader(gpt2, coders), [])
