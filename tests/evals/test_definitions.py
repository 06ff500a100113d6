"""Every figure of every suite says what it means, under a name of its own."""

import pytest

from unweave.errors import UserError
from unweave.evals import absorption, mdl, probing, ravel, sae_probes, scr, shift, tpp, unlearning
from unweave.evals.hierarchy_absorption import CHILD_HOLDS_PARENT, ParentSilence
from unweave.evals.pooled import token_sequences
from unweave.metrics import definitions
from unweave.models.language_model import LanguageModel

SUITES = [
    *(found for module in (probing, ravel, sae_probes, scr, shift, tpp) for found in module.definitions()),
    *(found for module in (absorption, mdl, unlearning) for found in module.DEFINITIONS),
    *ParentSilence.definitions,
    CHILD_HOLDS_PARENT,
]


def test_every_figure_says_what_it_means_under_a_name_of_its_own() -> None:
    names = [definition.name for definition in SUITES]
    assert len(set(names)) == len(names) and not set(names) & set(definitions())
    for definition in SUITES:
        assert definition.meaning.endswith(".") and definition.title and definition.good and definition.version == 1


def test_a_model_without_a_tokenizer_reads_no_labelled_texts(gpt2: LanguageModel) -> None:
    with pytest.raises(UserError, match="has no tokenizer files, so it cannot read text"):
        token_sequences(LanguageModel(gpt2.model, None, "bare"), ["a"])
