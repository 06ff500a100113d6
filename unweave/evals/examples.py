"""Labelled examples as coders read them: the rows, the latents and the labels of a task, whatever it is made of."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.evals.pooled import (
    Pooled,
    Pooling,
    beginning,
    check_coders,
    content_sums,
    single_tokens,
    summed,
    token_sequences,
)
from unweave.evals.tasks import CONTINUES, UNLABELLED, LabelledTexts, LabelledTokens, check_labels, some_of_each
from unweave.models.language_model import LanguageModel


class Examples(NamedTuple):
    """Rows and latents of a task, by the name of the coder, and what is true of each."""

    task: str
    classes: tuple[str, ...]
    pooled: Pooled
    labels: Int[np.ndarray, " N"]
    documents: Int[np.ndarray, " N"]
    is_test: Bool[np.ndarray, " N"]

    def where(self, keep: Int[np.ndarray, " M"]) -> "Examples":
        """Some of them, in this order."""
        pooled = Pooled(
            {name: rows[keep] for name, rows in self.pooled.rows.items()},
            {name: latents[keep] for name, latents in self.pooled.latents.items()},
        )
        return self._replace(
            pooled=pooled, labels=self.labels[keep], documents=self.documents[keep], is_test=self.is_test[keep]
        )


class TokenLabels(NamedTuple):
    """Tokens that have a label; texts ascend."""

    texts: Int[np.ndarray, " N"]
    positions: Int[np.ndarray, " N"]
    labels: Int[np.ndarray, " N"]


def text_examples(
    model: LanguageModel,
    coders: Mapping[str, SparseCoder],
    task: LabelledTexts,
    *,
    how: Pooling = "mean",
    context: int = 128,
) -> Examples:
    """One example per text."""
    sequences = token_sequences(model, task.texts, context)
    sums = summed(model, coders, sequences, content_sums(model, sequences, how))
    return Examples(task.name, task.classes, sums, task.labels, task.documents, task.is_test)


def token_examples(
    model: LanguageModel,
    coders: Mapping[str, SparseCoder],
    task: LabelledTokens,
    *,
    per_class: int = 300,
    context: int = 256,
) -> Examples:
    """One example per labelled token, up to ``per_class`` of each class and side.

    A token has the label of its characters, white space aside; tokens of more than one class have none, nor has one
    that begins within a word whose beginning is labelled. Classes without tokens on both sides are left out.
    """
    texts, positions, labels = token_labels(model, task, context)
    filled = [
        number
        for number in range(len(task.classes))
        if len(set(task.is_test[texts[labels == number]].tolist())) == 2  # on both sides
    ]
    kept = np.flatnonzero(np.isin(labels, filled))
    kept = kept[some_of_each(2 * labels[kept] + task.is_test[texts[kept]], per_class)]
    texts, positions, labels = texts[kept], positions[kept], np.searchsorted(np.array(filled), labels[kept])
    classes = tuple(task.classes[number] for number in filled)
    check_labels(task.name, labels, classes, task.is_test[texts])
    sums = summed(model, coders, token_sequences(model, task.texts, context), single_tokens(texts, positions))
    return Examples(task.name, classes, sums, labels, task.documents[texts], task.is_test[texts])


class Reader:
    """A model and several coders that read a task once, however many suites measure on it."""

    def __init__(self, model: LanguageModel, coders: Mapping[str, SparseCoder]) -> None:
        """Raise ``UserError`` for a coder that does not fit the model."""
        check_coders(model, coders)
        self.model, self.coders = model, coders
        self._read: dict[tuple[int, Pooling], tuple[LabelledTexts | LabelledTokens, Examples]] = {}

    def examples(self, task: LabelledTexts | LabelledTokens, *, how: Pooling = "mean") -> Examples:
        """The examples of either kind of task; ``how`` is for texts."""
        key = (id(task), how)
        if key not in self._read:
            if isinstance(task, LabelledTokens):
                found = token_examples(self.model, self.coders, task)
            else:
                found = text_examples(self.model, self.coders, task, how=how)
            self._read[key] = (task, found)  # the task too, so that no other one can have its id
        return self._read[key][1]


def token_labels(model: LanguageModel, task: LabelledTokens, context: int) -> TokenLabels:
    """The labelled tokens of a task, in the order of its texts."""
    n_front, tokenizer = len(beginning(model)), model.tokenizer
    if not tokenizer.is_fast:
        raise UserError(f"the tokenizer of {model.name} does not tell where in a text its tokens are; use a fast one")
    offsets = tokenizer(list(task.texts), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    found = [
        (number, n_front + position, label)
        for number, spans in enumerate(offsets)
        for position, span in enumerate(spans[: context - n_front])
        if (label := _token_label(task.texts[number], task.characters[number], span)) != UNLABELLED
    ]
    columns = np.array(found, dtype=np.int64).reshape(-1, 3)
    return TokenLabels(columns[:, 0], columns[:, 1], columns[:, 2])


def _token_label(text: str, characters: Int[np.ndarray, " _"], span: tuple[int, int]) -> int:
    labels = [int(characters[at]) for at in range(*span) if not text[at].isspace()]
    if not labels or labels[0] < 0 or any(label not in (labels[0], CONTINUES) for label in labels):
        return UNLABELLED
    return labels[0]
