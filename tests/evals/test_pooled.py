"""Pooled rows and latents equal those of each text alone, without padding."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from unweave.coders import Origin, Port, SparseCoder, Wiring, architecture
from unweave.errors import UserError
from unweave.evals.examples import Reader, token_examples, token_labels
from unweave.evals.pooled import check_ablatable, content_sums, pooled, single_tokens, sparse, summed, token_sequences
from unweave.evals.tasks import CONTINUES, UNLABELLED, LabelledTexts, LabelledTokens
from unweave.models.language_model import LanguageModel
from unweave.types import Codes

SITE, LATER = "layers.1.resid_post", "layers.2.resid_post"
TEXTS = ("The bird", "Seven threads made 63 knots; a hundred knots", "pulls one thread", "naïve", "cloth, cloth")


def _coder(model: LanguageModel, *sites: str, kind: str = "relu") -> SparseCoder:
    cls = architecture(kind)
    ports = [Port(site, model.width(site)) for site in sites]
    return cls(cls.Config(n_latents=63), Wiring.crosscoder(*ports)).eval().requires_grad_(False)


@pytest.mark.parametrize("how", ["mean", "last"])
def test_a_text_is_pooled_as_if_it_were_alone(lm: LanguageModel, how: str) -> None:
    coders = {"one": _coder(lm, SITE), "both": _coder(lm, SITE, LATER), "again": _coder(lm, SITE)}
    found = pooled(lm, coders, TEXTS, how=how, context=20)
    for number, text in enumerate(TEXTS):
        tokens = lm.tokens(text)[:, :20]
        seen = lm.capture(tokens, [SITE, LATER])
        for name, sites in (("one", [SITE]), ("both", [SITE, LATER]), ("again", [SITE])):
            x = torch.cat([seen[site][0, 1:] for site in sites], dim=1)
            x = x[-1:] if how == "last" else x
            np.testing.assert_allclose(found.rows[name][number], x.double().mean(0), rtol=1e-4, atol=1e-5)
            latents = coders[name].encode(x).dense().double().mean(0)
            np.testing.assert_allclose(found.latents[name][[number]].toarray()[0], latents, rtol=1e-4, atol=1e-5)
    assert found.rows["one"] is found.rows["again"], "rows of one site are kept once"


def test_many_short_texts_come_back_in_their_order(gpt2: LanguageModel) -> None:
    coder = _coder(gpt2, SITE)
    texts = [TEXTS[i % 5] for i in range(3000)]
    few, many = (pooled(gpt2, {"a": coder}, some) for some in (TEXTS, texts))
    np.testing.assert_allclose(many.rows["a"], few.rows["a"][np.arange(3000) % 5], rtol=1e-4, atol=1e-5)


def test_single_tokens_are_rows_of_their_own(gpt2: LanguageModel) -> None:
    coder = _coder(gpt2, SITE)
    sequences = token_sequences(gpt2, TEXTS)
    found = summed(gpt2, {"a": coder}, sequences, single_tokens(np.array([1, 1, 3]), np.array([4, 2, 1])))
    row = gpt2.capture(gpt2.tokens(TEXTS[1]), SITE)[SITE][0]
    np.testing.assert_allclose(found.rows["a"][:2], row[[4, 2]], rtol=1e-4, atol=1e-5)


def test_special_tokens_within_a_text_have_no_weight(gpt2: LanguageModel) -> None:
    sums = content_sums(gpt2, token_sequences(gpt2, ["a<|endoftext|>b"]), "mean")
    assert sums.positions.tolist() == [1, 3] and sums.weights.tolist() == [0.5, 0.5]
    with pytest.raises(UserError, match="text 1 has no tokens apart from special ones"):
        content_sums(gpt2, token_sequences(gpt2, ["a", "<|endoftext|>"]), "last")


def test_explicit_zeros_are_no_entries() -> None:
    codes = Codes(torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0, 2, 1]), torch.tensor([0, 2, 3]), 4)
    matrix = sparse(codes)
    assert matrix.nnz == 2 and matrix.indices.dtype == np.int32
    assert matrix.toarray().tolist() == [[1, 0, 0, 0], [0, 2, 0, 0]]


def test_coders_that_do_not_fit_are_told(gpt2: LanguageModel) -> None:
    narrow = architecture("relu")(architecture("relu").Config(n_latents=7), Wiring.sae(12, SITE))
    with pytest.raises(UserError, match=r"coder 'a' reads rows of width 12, but layers\.1\.resid_post of .* has 28"):
        pooled(gpt2, {"a": narrow}, TEXTS)
    stranger = _coder(gpt2, SITE)
    stranger.origin = Origin("somewhere/else")
    with pytest.raises(UserError, match="coder 'a' was trained on somewhere/else, not on"):
        pooled(gpt2, {"a": stranger}, TEXTS)
    with pytest.raises(UserError, match="there is no coder to measure"):
        pooled(gpt2, {}, TEXTS)
    with pytest.raises(UserError, match="context=1 leaves no room for a text"):
        pooled(gpt2, {"a": _coder(gpt2, SITE)}, TEXTS, context=1)
    assert len(token_sequences(gpt2, ["cloth " * 100])[0]) == 63, "the model's own context"
    with pytest.raises(UserError, match="coder 'a' is a crosscoder; ablating latents needs"):
        check_ablatable({"a": _coder(gpt2, SITE, LATER)})
    normed = Wiring((Port(SITE, 28),), (Port(SITE, 28),), row_norm="layer_norm")
    with pytest.raises(UserError, match="norms each row by layer_norm"):
        check_ablatable({"a": architecture("relu")(architecture("relu").Config(n_latents=7), normed)})


def test_a_token_has_the_label_that_all_its_characters_share(gpt2: LanguageModel) -> None:
    """Worked by hand over the offsets of a text whose characters are labelled one by one."""
    text = " the cloth"
    characters = np.full(len(text), UNLABELLED, dtype=np.int8)
    characters[1], characters[2:4] = 1, CONTINUES
    characters[5:] = [0, 0, 0, 1, 0]
    task = LabelledTokens("hand", (text,), (characters,), ("a", "b"), np.array([0]), np.array([False]))
    offsets = gpt2.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    expected = []
    for place, (start, end) in enumerate(offsets):
        labels = [int(characters[at]) for at in range(start, end) if text[at] != " "]
        if labels and labels[0] >= 0 and set(labels) <= {labels[0], CONTINUES}:
            expected.append((1 + place, labels[0]))
    found = token_labels(gpt2, task, 63)
    assert list(zip(found.positions.tolist(), found.labels.tolist(), strict=True)) == expected != []
    assert not len(token_labels(gpt2, task, 1).labels), "no room for a token"


def test_classes_without_tokens_on_both_sides_are_left_out(gpt2: LanguageModel) -> None:
    texts = ("abab", "baba", "cccc")
    characters = tuple(np.array(["abc".index(char) for char in text], dtype=np.int8) for text in texts)
    sides = np.array([False, True, False])
    task = LabelledTokens("letters", texts, characters, ("a", "b", "c"), np.arange(3), sides)
    found = token_examples(gpt2, {"a": _coder(gpt2, SITE)}, task, context=20)
    assert found.classes == ("a", "b") and set(found.labels.tolist()) == {0, 1}
    with pytest.raises(UserError, match="has no texts"):
        token_examples(gpt2, {"a": _coder(gpt2, SITE)}, LabelledTokens(
            "letters", texts, characters, ("a", "b", "c"), np.arange(3), np.array([False] * 3)
        ), context=20)  # fmt: skip


def test_a_task_is_read_once_for_all_suites(gpt2: LanguageModel) -> None:
    sides = np.array([False, False, True, True, True])
    task = LabelledTexts("t", TEXTS, np.arange(5) % 2, ("even", "odd"), np.arange(5), sides)
    reader = Reader(gpt2, {"one": _coder(gpt2, SITE)})
    mean, last = reader.examples(task), reader.examples(task, how="last")
    assert reader.examples(task) is mean and reader.examples(task, how="last") is last
    other = reader.examples(replace(task, name="other"))
    assert other.task == "other" and not np.array_equal(mean.pooled.rows["one"], last.pooled.rows["one"])
    np.testing.assert_array_equal(other.pooled.rows["one"], mean.pooled.rows["one"])


def test_a_text_that_is_read_as_a_sequence_is_pooled_as_if_it_were_alone(gpt2: LanguageModel) -> None:
    cls = architecture("temporal")
    config = cls.Config(n_latents=63, n_heads=3, d_key=9, k=7)
    coder = cls(config, Wiring.sae(gpt2.width(SITE), SITE)).eval().requires_grad_(False)
    found = pooled(gpt2, {"a": coder}, TEXTS, context=20)
    for number, text in enumerate(TEXTS):
        latents = coder.encode(gpt2.capture(gpt2.tokens(text)[:, :20], SITE)[SITE]).dense()[1:].double().mean(0)
        np.testing.assert_allclose(found.latents["a"][[number]].toarray()[0], latents, rtol=1e-3, atol=1e-4)
