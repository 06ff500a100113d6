"""From documents to batches of token sequences of equal length: tokenise, join with separators, cut."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch

from unweave.errors import UserError
from unweave.models.language_model import LanguageModel
from unweave.models.tokenising import tokenised
from unweave.types import Document, TextPosition, TokenBatch


@dataclass(frozen=True, kw_only=True)
class PackingConfig:
    """How documents become sequences, and which tokens become rows."""

    context: int = 256
    """Tokens per sequence, beginning-of-text token included."""
    prepend_bos: bool = True
    """Begin every sequence with the tokenizer's beginning-of-text token."""
    separator: Literal["bos", "eos", "none"] = "bos"
    """Token put in front of every document."""
    cross_documents: bool = True
    """Let documents run on over the ends of sequences; else a sequence has one document, and padding behind its end."""
    exclude_special_tokens: bool = True
    """Leave rows at special tokens (BOS above all) out of training and measurement."""
    exclude_first_position: bool = False
    """Leave the first row of every sequence out of training and measurement."""
    max_norm: float = 0.0
    """Leave out rows whose norm is over this many times the median of their token batch, at any site; 0: keep all."""

    def __post_init__(self) -> None:
        if self.context < 2:
            raise UserError(f"packing.context must be at least 2 tokens, got {self.context}")
        if self.max_norm != 0 and not self.max_norm > 1:
            raise UserError(
                f"packing.max_norm is a multiple of the median, so over 1, or 0 for off; got {self.max_norm}"
            )


def pack(
    documents: Iterable[Document],
    model: LanguageModel,
    config: PackingConfig,
    batch: int,
    start: TextPosition = TextPosition(),  # noqa: B008  # it cannot be changed
) -> Iterator[TokenBatch]:
    """Batches of ``batch`` sequences of ``config.context`` tokens; documents run on over the ends of sequences.

    ``start``: what an earlier batch has as ``after``, to go on behind it; then ``documents`` begin with document number
    ``start.document``. The last batch may hold fewer sequences; tokens that do not fill a last sequence are left out.
    Raises ``UserError`` when the text has not even one sequence.
    """
    packer = _Packer(model, config, start)
    waiting: list[_Sequence] = []
    any_sequence = False
    for sequence in packer.sequences(documents):
        any_sequence = True
        waiting.append(sequence)
        if len(waiting) == batch:
            yield packer.to_batch(waiting)
            waiting = []
    if waiting:
        yield packer.to_batch(waiting)
    if not any_sequence:
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
    """Ids of the tokenizer's special tokens, those of a chat template among them."""
    added = model.tokenizer.added_tokens_decoder
    return sorted({*model.tokenizer.all_special_ids, *(token for token, facts in added.items() if facts.special)})


def token_texts(model: LanguageModel, token_ids: Sequence[int]) -> list[str]:
    """Each token as text, with a replacement character for bytes that are not a character of their own."""
    return model.tokenizer.batch_decode([[token] for token in token_ids], clean_up_tokenization_spaces=False)


class _Sequence(NamedTuple):
    """One sequence on its way into a batch, all arrays [T]."""

    tokens: np.ndarray
    owners: np.ndarray
    n_text: int
    """Tokens in front of the padding."""
    after: TextPosition


class _Stretch(NamedTuple):
    """Tokens that are in no sequence yet, all arrays of the same length."""

    tokens: np.ndarray
    owners: np.ndarray
    """Number of the document of each token."""
    places: np.ndarray
    """Index of each token within its document."""


class _Packer:
    """Joins tokenised documents into one stream and cuts sequences off its front."""

    def __init__(self, model: LanguageModel, config: PackingConfig, start: TextPosition) -> None:
        if model.tokenizer is None:
            raise UserError(f"{model.name} has no tokenizer files, so it cannot read text; add its tokenizer.json")
        check_context(model, config)
        self.tokenizer = model.tokenizer
        self.config = config
        self.start = start
        self.bos = self._token("bos") if config.prepend_bos else None
        self.separator = self._token(config.separator) if config.separator != "none" else None
        self.padding = next((i for i in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id) if i is not None), 0)
        excluded = special_ids(model) if config.exclude_special_tokens else []
        self.excluded = np.array(excluded, dtype=np.int64)
        self.n_tokens = 0

    def sequences(self, documents: Iterable[Document]) -> Iterator[_Sequence]:
        """Sequences in order, cut off as documents come."""
        empty = np.empty(0, dtype=np.int64)
        rest = _Stretch(empty, empty, empty)
        fresh: list[_Stretch] = []
        n_fresh = 0
        number = self.start.document
        for document in tokenised(documents, self.tokenizer):
            stretch = self._stretch(document, number)
            number += 1
            fresh.append(stretch)
            n_fresh += len(stretch.tokens)
            self.n_tokens += len(stretch.tokens)
            if self.config.cross_documents and len(rest.tokens) + n_fresh < self.config.context:
                continue
            rest = _Stretch(*(np.concatenate(parts) for parts in zip(rest, *fresh, strict=True)))
            fresh, n_fresh = [], 0
            start = 0
            while end := self._end(rest, start):
                yield self._sequence(rest, start, end, number)
                start = end
            rest = _Stretch(*(part[start:] for part in rest))

    def to_batch(self, sequences: list[_Sequence]) -> TokenBatch:
        tokens = np.stack([sequence.tokens for sequence in sequences])
        owners = np.stack([sequence.owners for sequence in sequences])
        content = ~np.isin(tokens, self.excluded)
        is_padding = None
        if not self.config.cross_documents:
            lengths = np.array([sequence.n_text for sequence in sequences])
            padded = np.arange(tokens.shape[1]) >= lengths[:, None]
            content &= ~padded
            is_padding = torch.from_numpy(padded)
        if self.config.exclude_first_position:
            content[:, 0] = False
        arrays = (torch.from_numpy(array) for array in (tokens, owners, content))
        return TokenBatch(*arrays, after=sequences[-1].after, is_padding=is_padding)

    def _stretch(self, document: Document, number: int) -> _Stretch:
        ids = np.asarray(document.token_ids, dtype=np.int64)
        has_own = document.messages is not None and len(ids) and ids[0] == self.separator  # written by the template
        if self.separator is not None and not has_own:
            ids = np.concatenate([np.array([self.separator]), ids])
        first = self.start.token if number == self.start.document else 0
        places = np.arange(first, max(first, len(ids)))
        return _Stretch(ids[first:], np.full(len(places), number), places)

    def _end(self, rest: _Stretch, start: int) -> int:
        """Where the sequence from ``start`` ends; 0 where there are not enough tokens for one."""
        if start == len(rest.tokens):
            return 0
        has_bos = self.bos is None or rest.tokens[start] == self.bos
        end = start + self.config.context - (0 if has_bos else 1)
        if not self.config.cross_documents:
            return min(end, start + int(np.searchsorted(rest.owners[start:], rest.owners[start], side="right")))
        return end if end <= len(rest.tokens) else 0

    def _sequence(self, rest: _Stretch, start: int, end: int, next_document: int) -> _Sequence:
        tokens, owners = rest.tokens[start:end], rest.owners[start:end]
        if self.bos is not None and tokens[0] != self.bos:
            tokens, owners = np.concatenate([np.array([self.bos]), tokens]), np.concatenate([owners[:1], owners])
        n_text = len(tokens)
        if missing := self.config.context - n_text:
            tokens = np.concatenate([tokens, np.full(missing, self.padding)])
            owners = np.concatenate([owners, np.full(missing, owners[0])])
        is_last = end == len(rest.tokens)
        after = TextPosition(next_document) if is_last else TextPosition(int(rest.owners[end]), int(rest.places[end]))
        return _Sequence(tokens, owners, n_text, after)

    def _token(self, kind: str) -> int:
        for token in (getattr(self.tokenizer, f"{kind}_token_id"), self.tokenizer.eos_token_id):
            if token is not None:
                return token
        raise UserError(
            f'this tokenizer has no {kind} token; set packing.prepend_bos=false and packing.separator="none"'
        )
