"""Words of a tokenizer's vocabulary and their first letters, read at the word itself or behind a prompt.

A word is a token of ASCII letters, with or without a space in front, that the tokenizer finds again in its text. Read
without a prompt, a sequence is the word behind the beginning-of-text token. The prompt is that of Chanin et al. 2024
(arXiv 2409.14507): ten lines that spell first letters, and the beginning of another one.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.evals.examples import Examples
from unweave.evals.pooled import beginning, single_tokens, summed
from unweave.evals.python_source import LETTERS
from unweave.evals.tasks import check_labels, document_numbers, is_measured, some_of_each
from unweave.models.language_model import LanguageModel
from unweave.models.tokens import token_texts

Prompt = Literal["none", "spelling"]
_SHOTS = 10


class Word(NamedTuple):
    """A token that is a word."""

    token: int
    text: str
    """With the space in front, where it has one."""

    @property
    def letters(self) -> str:
        return self.text.strip().lower()


def words_of(model: LanguageModel) -> list[Word]:
    """The words of the vocabulary, by token."""
    beginning(model)
    texts = token_texts(model, range(model.n_vocabulary))
    words = [Word(token, text) for token, text in enumerate(texts) if _is_word(text)]
    if not words:
        raise UserError(f"the vocabulary of {model.name} has no words of two letters or more; label tokens of a text")
    again = model.tokenizer([word.text for word in words], add_special_tokens=False)["input_ids"]
    return [word for word, ids in zip(words, again, strict=True) if list(ids) == [word.token]]


def letter_examples(
    model: LanguageModel,
    coders: Mapping[str, SparseCoder],
    *,
    prompt: Prompt = "none",
    per_letter: int = 300,
    seed: int = 0,
) -> Examples:
    """The row at each word and the first letter of the word; spellings of one word are on one side of the split.

    ``seed`` draws the words of the prompt. Raises ``UserError`` where prompts differ in their number of tokens.
    """
    words = words_of(model)
    labels = np.array([LETTERS.index(word.letters[0]) for word in words], dtype=np.int64)
    is_test = np.array([is_measured(word.letters) for word in words], dtype=bool)
    filled = [letter for letter in range(len(LETTERS)) if len(set(is_test[labels == letter].tolist())) == 2]
    kept = np.flatnonzero(np.isin(labels, filled))
    kept = kept[some_of_each(2 * labels[kept] + is_test[kept], per_letter)]
    words, labels, is_test = [words[i] for i in kept], np.searchsorted(np.array(filled), labels[kept]), is_test[kept]
    classes = tuple(LETTERS[letter] for letter in filled)
    check_labels("first_letter", labels, classes, is_test)
    front = beginning(model)
    if prompt == "none":
        sequences, at = [np.array([*front, word.token]) for word in words], len(front)
    else:
        sequences, at = prompted(model, words, seed)
    sums = single_tokens(np.arange(len(words)), np.full(len(words), at))
    numbers = document_numbers([word.letters for word in words])
    return Examples("first_letter", classes, summed(model, coders, sequences, sums), labels, numbers, is_test)


def prompted(model: LanguageModel, words: Sequence[Word], seed: int) -> tuple[list[np.ndarray], int]:
    """A spelling prompt for each word, and where in all of them the word is."""
    generator = np.random.default_rng(seed)
    shots = [words[i] for i in generator.permutation(len(words))[:_SHOTS]]
    lines = [f"{shot.text} has the first letter: {shot.letters[0].upper()}\n" for shot in shots]
    texts = ["".join(lines) + f"{word.text} has the first letter:" for word in words]
    front = beginning(model)
    found = model.tokenizer(texts, add_special_tokens=False)["input_ids"]
    sequences = [np.array([*front, *ids], dtype=np.int64) for ids in found]
    if model.max_context is not None and len(sequences[0]) > model.max_context:
        raise UserError(
            f"a spelling prompt has {len(sequences[0])} tokens, more than the {model.max_context} {model.name} was "
            'made for; set prompt="none"'
        )
    for word, sequence in zip(words, sequences, strict=True):
        if len(sequence) != len(sequences[0]):
            raise UserError(
                f"the prompts for {words[0].text!r} and {word.text!r} have {len(sequences[0])} and {len(sequence)} "
                'tokens, and words must be at the same place; set prompt="none"'
            )
    tail = len(model.tokenizer(" has the first letter:", add_special_tokens=False)["input_ids"])
    at = len(sequences[0]) - tail - 1
    for word, sequence in zip(words, sequences, strict=True):
        if at < 0 or sequence[at] != word.token:
            raise UserError(f'the prompt for {word.text!r} does not hold its token where it should; set prompt="none"')
    return sequences, at


def _is_word(text: str) -> bool:
    word = text.removeprefix(" ")
    return len(word) > 1 and word.isascii() and word.isalpha()
