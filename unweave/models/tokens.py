"""From documents to batches of token sequences of equal length: tokenise, join with separators, cut."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from unweave.errors import UserError
from unweave.models.language_model import LanguageModel
from unweave.types import Document, TokenBatch

_DOCUMENTS_AT_ONCE = 32
"""Documents tokenised together; the tokenizer spreads them over the cores."""


@dataclass(frozen=True, kw_only=True)
class PackingConfig:
    """How documents become sequences."""

    context: int = 256
    """Tokens per sequence, beginning-of-text token included."""
    prepend_bos: bool = True
    """Begin every sequence with the tokenizer's beginning-of-text token."""
    separator: Literal["bos", "eos", "none"] = "bos"
    """Token put in front of every document."""
    exclude_special_tokens: bool = True
    """Leave rows at special tokens (BOS above all) out of training and measurement."""

    def __post_init__(self) -> None:
        if self.context < 2:
            raise UserError(f"packing.context must be at least 2 tokens, got {self.context}")


def pack(
    documents: Iterable[Document], model: LanguageModel, config: PackingConfig, batch: int
) -> Iterator[TokenBatch]:
    """Batches of ``batch`` sequences of ``config.context`` tokens; documents run on over the ends of sequences.

    The last batch may hold fewer sequences; tokens that do not fill a last sequence are left out.
    Raises ``UserError`` when the text has not even one sequence.
    """
    packer = _Packer(model, config)
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    any_row = False
    for row in packer.rows(documents):
        any_row = True
        waiting.append(row)
        if len(waiting) == batch:
            yield packer.to_batch(waiting)
            waiting = []
    if waiting:
        yield packer.to_batch(waiting)
    if not any_row:
        raise UserError(
            f"the text has {packer.n_tokens} tokens, fewer than one sequence of {config.context}; "
            "give more text or a smaller packing.context"
        )


def check_context(model: LanguageModel, config: PackingConfig) -> None:
    """Raise ``UserError`` where sequences are longer than the model's own context."""
    if model.max_context is not None and config.context > model.max_context:
        raise UserError(
            f"packing.context={config.context} is longer than the {model.max_context} tokens "
            f"{model.name} was made for; set packing.context={model.max_context} or less"
        )


def special_ids(model: LanguageModel) -> list[int]:
    """Ids of the tokenizer's special tokens."""
    return sorted(set(model.tokenizer.all_special_ids))


def token_texts(model: LanguageModel, token_ids: Sequence[int]) -> list[str]:
    """Each token as text, with a replacement character for bytes that are not a character of their own."""
    return model.tokenizer.batch_decode([[token] for token in token_ids], clean_up_tokenization_spaces=False)


class _Packer:
    """Joins tokenised documents into one stream and cuts rows off its front."""

    def __init__(self, model: LanguageModel, config: PackingConfig) -> None:
        if model.tokenizer is None:
            raise UserError(f"{model.name} has no tokenizer files, so it cannot read text; add its tokenizer.json")
        check_context(model, config)
        self.tokenizer = model.tokenizer
        self.config = config
        self.bos = self._token("bos") if config.prepend_bos else None
        self.separator = self._token(config.separator) if config.separator != "none" else None
        excluded = special_ids(model) if config.exclude_special_tokens else []
        self.excluded = np.array(excluded, dtype=np.int64)
        self.n_tokens = 0

    def rows(self, documents: Iterable[Document]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of token ids and document ids, each [T]."""
        tokens = np.empty(0, dtype=np.int64)
        owners = np.empty(0, dtype=np.int64)
        for first_id, texts in _groups(documents):
            pieces = [self._encode(ids) for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]]
            tokens = np.concatenate([tokens, *pieces])
            counts = [len(piece) for piece in pieces]
            owners = np.concatenate([owners, np.repeat(np.arange(first_id, first_id + len(texts)), counts)])
            self.n_tokens += sum(counts)
            start = 0
            while (end := start + self._taken(tokens, start)) <= len(tokens):
                yield self._row(tokens[start:end], owners[start:end])
                start = end
            tokens, owners = tokens[start:], owners[start:]

    def to_batch(self, rows: list[tuple[np.ndarray, np.ndarray]]) -> TokenBatch:
        tokens = np.stack([row[0] for row in rows])
        content = ~np.isin(tokens, self.excluded)
        owners = np.stack([row[1] for row in rows])
        return TokenBatch(torch.from_numpy(tokens), torch.from_numpy(owners), torch.from_numpy(content))

    def _encode(self, ids: list[int]) -> np.ndarray:
        return np.array(ids if self.separator is None else [self.separator, *ids], dtype=np.int64)

    def _taken(self, tokens: np.ndarray, start: int) -> int:
        """Tokens of the stream that the next row takes: all but one where a BOS must be put in front."""
        starts_with_bos = start < len(tokens) and tokens[start] == self.bos
        return self.config.context if self.bos is None or starts_with_bos else self.config.context - 1

    def _row(self, tokens: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(tokens) == self.config.context:
            return tokens, owners
        return np.concatenate([np.array([self.bos]), tokens]), np.concatenate([owners[:1], owners])

    def _token(self, kind: str) -> int:
        for token in (getattr(self.tokenizer, f"{kind}_token_id"), self.tokenizer.eos_token_id):
            if token is not None:
                return token
        raise UserError(
            f'this tokenizer has no {kind} token; set packing.prepend_bos=false and packing.separator="none"'
        )


def _groups(documents: Iterable[Document]) -> Iterator[tuple[int, list[str]]]:
    group: list[str] = []
    first_id = 0
    for document in documents:
        group.append(document.text)
        if len(group) == _DOCUMENTS_AT_ONCE:
            yield first_id, group
            first_id += len(group)
            group = []
    if group:
        yield first_id, group
