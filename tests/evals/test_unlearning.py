"""Latents that are set where they are active, the losses that this adds, and which edit is chosen."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.evals.tasks import LabelledTexts
from unweave.evals.unlearning import (
    DEFINITIONS,
    Chosen,
    Texts,
    chosen_latents,
    losses,
    measure_forgotten_classes,
    measure_unlearning,
    set_where_active,
    texts_of,
)
from unweave.models.language_model import LanguageModel
from unweave.models.tokens import PackingConfig, pack
from unweave.types import Codes, Document


@pytest.fixture(scope="module")
def texts(pylm: LanguageModel, documents: list[Document]) -> Texts:
    """Language topics to forget, sources to keep."""
    topics = [doc for doc in documents if doc.name.startswith("topic.")]
    sources = [doc for doc in documents if doc.name.startswith("idlelib")]
    config = PackingConfig(context=64)
    short = [[doc._replace(text=doc.text[:300]) for doc in kind[:40]] for kind in (topics, sources)]
    return Texts(*([next(pack(part, pylm, config, 8))] for kind in short for part in (kind[:20], kind[20:])))


def test_candidates_by_hand() -> None:
    forget, keep = torch.tensor([0.5, 0.9, 0.2, 0.0]).double(), torch.tensor([0.0, 0.5, 0.005, 0.0]).double()
    means = torch.tensor([1.0, 2.0, 3.0, 0.0]).double()
    strict = chosen_latents(forget, keep, means, 0.001, 2, 5.0)
    assert strict.latents.tolist() == [0] and strict.values.tolist() == [-5.0]
    loose = chosen_latents(forget, keep, means, 0.01, 2, 1.0)
    assert loose.latents.tolist() == [0, 2] and loose.values.tolist() == [-1.0, -3.0]


def test_only_active_latents_are_set() -> None:
    codes = Codes(torch.tensor([1.0, 2.0, 0.0]), torch.tensor([0, 2, 2]), torch.tensor([0, 2, 3]), 3)
    found = set_where_active(codes, Chosen(torch.tensor([1, 2]), torch.tensor([-4.0, -6.0])))
    assert found.values.tolist() == [1.0, -6.0, 0.0]


def test_losses_are_those_of_the_model(pylm: LanguageModel, texts: Texts) -> None:
    batch = texts.forget_learn[0]
    expected = F.cross_entropy(pylm.logits(batch.token_ids)[:, :-1].flatten(0, 1), batch.token_ids[:, 1:].flatten())
    found = losses(pylm, [batch])
    assert found.mean == pytest.approx(expected.item(), rel=1e-5)
    assert found.tokens.sum() == 8 * 63 and (found.tokens > 0).sum() > 1


def test_the_chosen_edit_is_harmless_where_it_was_chosen(
    pylm: LanguageModel, texts: Texts, small_coder: SparseCoder
) -> None:
    def measured(tolerance: float) -> dict[str, float]:
        options = {"shares": (1.1,), "numbers": (5,), "multiples": (1.0, 20.0)}
        found = measure_unlearning(pylm, {"small": small_coder}, texts, tolerance=tolerance, **options)["small"]
        assert set(found.figures) == set(found.standard_errors) == {definition.name for definition in DEFINITIONS}
        assert len(found.details) == 4
        return found.figures

    assert measured(-99.0) == {"unlearning_forgotten": 0.0, "unlearning_lost": 0.0}, "no edit is so harmless"
    free = measured(99.0)
    assert free["unlearning_forgotten"] > 0.01
    assert np.isfinite(free["unlearning_lost"])


def test_a_missing_text_is_told(pylm: LanguageModel, texts: Texts, small_coder: SparseCoder) -> None:
    with pytest.raises(UserError, match="there is no text as keep_check"):
        measure_unlearning(pylm, {"small": small_coder}, texts._replace(keep_check=[]))


@pytest.mark.slow
def test_the_first_class_of_labelled_texts_is_to_forget(pylm: LanguageModel, small_coder: SparseCoder) -> None:
    words = ["def run(self): return self.value", "The weaver ties the warp to the beam and sings."]
    texts = tuple(f"{words[i % 2]} {i}\n" * 8 for i in range(80))
    task = LabelledTexts(
        "kinds",
        texts,
        labels=np.arange(80) % 2,
        classes=("code", "prose"),
        documents=np.arange(80) // 4,
        is_test=np.arange(80) >= 40,
    )
    packed = texts_of(pylm, task)
    decoded = pylm.tokenizer.decode(packed.forget_check[0].token_ids[0].tolist())
    assert "def run(self)" in decoded and "weaver" not in decoded
    assert "weaver" in pylm.tokenizer.decode(packed.keep_learn[0].token_ids[0].tolist())
    found = measure_forgotten_classes(pylm, {"small": small_coder}, [task], tolerance=99.0)["small"]
    alone = measure_unlearning(pylm, {"small": small_coder}, packed, tolerance=99.0)["small"]
    assert found.figures == alone.figures and found.n == alone.n
    assert found.details["kinds/code/unlearning_lost"] == alone.figures["unlearning_lost"]
    with pytest.raises(UserError, match="at least one task, got none"):
        measure_forgotten_classes(pylm, {"small": small_coder}, [])
