"""From documents to token ids, without the special tokens that packing adds."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from unweave.errors import UserError
from unweave.types import Document

_DOCUMENTS_AT_ONCE = 32
"""Documents tokenised together; the tokenizer spreads them over the cores."""


def tokenised(documents: Iterable[Document], tokenizer: Any) -> Iterator[Document]:
    """The documents with their tokens; those that have them already are passed on as they are.

    Chats are rendered by the tokenizer's own template; raises ``UserError`` where it has none.
    """
    for group in _groups(documents):
        texts = [document.text for document in group if document.token_ids is None and document.messages is None]
        of_texts = iter(tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else ())
        for document in group:
            if document.token_ids is not None:
                yield document
            else:
                ids = next(of_texts) if document.messages is None else _of_chat(document, tokenizer)
                yield document._replace(token_ids=np.array(ids, dtype=np.int64))


def _of_chat(document: Document, tokenizer: Any) -> Sequence[int]:
    if not tokenizer.chat_template:
        raise UserError(
            "text.chat=true needs a tokenizer with a chat template, and that of the model has none; "
            "choose an instruction-tuned model, or set text.chat=false"
        )
    try:
        return tokenizer.apply_chat_template(document.messages, tokenize=True, return_dict=True)["input_ids"]
    except Exception as error:  # a template may refuse roles or their order, with an exception of its own
        raise UserError(f"the tokenizer's chat template does not take {document.name!r}: {error}") from error


def _groups(documents: Iterable[Document]) -> Iterator[list[Document]]:
    reading = iter(documents)
    while group := list(itertools.islice(reading, _DOCUMENTS_AT_ONCE)):
        yield group
