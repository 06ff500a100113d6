"""Packing goes on behind any batch as if it had never stopped, and documents can keep to sequences of their own."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from unweave.errors import UserError
from unweave.formats.documents import ListedDocuments
from unweave.models.language_model import LanguageModel
from unweave.models.tokenising import tokenised
from unweave.models.tokens import PackingConfig, pack, special_ids
from unweave.types import Document, TextPosition, TokenBatch

LETTERS = "abcdefghijklmnopqrstuvwxyz"
B, E, P = 26, 27, 29
TEMPLATE = "{{ '<bos>' }}{% for turn in messages %}<turn> {{ turn['role'] }} {{ turn['content'] }} {% endfor %}"


def _letters(gpt2: LanguageModel, **special: str) -> LanguageModel:
    vocabulary = {letter: i for i, letter in enumerate(LETTERS)}
    vocabulary |= {"<bos>": B, "<eos>": E, "?": 28, "<pad>": P, "<turn>": 30, "user": 31, "assistant": 32}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", **special)
    return LanguageModel(gpt2.model, fast, "letters")


@pytest.fixture(scope="module")
def letters(gpt2: LanguageModel) -> LanguageModel:
    return _letters(gpt2)


@pytest.fixture(scope="module")
def chatting(gpt2: LanguageModel) -> LanguageModel:
    model = _letters(gpt2, pad_token="<pad>")
    model.tokenizer.add_tokens(["<turn>"], special_tokens=True)
    model.tokenizer.chat_template = TEMPLATE
    return model


def _ids(text: str) -> list[int]:
    return [{"B": B, "E": E, "P": P}.get(letter, ord(letter) - ord("a")) for letter in text.replace(" ", "")]


def _listed(*texts: str) -> ListedDocuments:
    return ListedDocuments("texts", tuple(Document(f"text {i}", " ".join(text)) for i, text in enumerate(texts)))


def _assert_equal(batch: TokenBatch, other: TokenBatch) -> None:
    assert batch.after == other.after
    for field in ("token_ids", "document_ids", "is_content", "is_padding"):
        ours, theirs = getattr(batch, field), getattr(other, field)
        assert (ours is None and theirs is None) or torch.equal(ours, theirs), field


def _assert_goes_on_anywhere(read: Callable[[TextPosition], "itertools.islice[TokenBatch]"]) -> None:
    batches = list(read(TextPosition()))
    for i, batch in enumerate(batches[:-1]):
        for expected, again in zip(batches[i + 1 :], read(batch.after), strict=False):
            _assert_equal(expected, again)


@given(
    st.lists(st.text(LETTERS, max_size=20), min_size=1, max_size=40).filter(any),
    st.integers(2, 9),
    st.booleans(),
    st.sampled_from(["bos", "eos", "none"]),
    st.booleans(),
    st.integers(1, 7),
)
def test_behind_every_batch_of_several_repetitions_the_same_batches_follow(
    letters: LanguageModel, texts: list[str], context: int, bos: bool, separator: str, across: bool, batch: int
) -> None:
    config = PackingConfig(context=context, prepend_bos=bos, separator=separator, cross_documents=across)
    documents = _listed(*texts)
    n_batches = 3 + 3 * (sum(map(len, texts)) + len(texts)) // (batch * (context - 1))

    def read(start: TextPosition) -> "itertools.islice[TokenBatch]":
        return itertools.islice(
            pack(documents.forever(start.document), letters, config, batch, start), min(12, n_batches)
        )

    _assert_goes_on_anywhere(read)


def test_long_texts_of_a_real_tokenizer_go_on_behind_every_batch(gpt2: LanguageModel, reader: str) -> None:
    documents = ListedDocuments("reader", tuple(Document(f"{i}", reader[i:] * (i % 3 + 1)) for i in range(63)))
    config = PackingConfig(context=63)

    def read(start: TextPosition) -> "itertools.islice[TokenBatch]":
        return itertools.islice(pack(documents.forever(start.document), gpt2, config, 100, start), 5)

    _assert_goes_on_anywhere(read)


def test_the_position_behind_a_batch_is_that_of_the_first_token_left(letters: LanguageModel) -> None:
    documents = _listed("abc", "de", "fghij")
    batches = pack(documents, letters, PackingConfig(context=4, prepend_bos=False), 1)
    # Babc | BdeB | fghi | j
    assert [batch.after for batch in batches] == [TextPosition(1, 0), TextPosition(2, 1), TextPosition(2, 5)]


def test_documents_are_numbered_from_the_start_that_is_given(letters: LanguageModel) -> None:
    documents = _listed("abc", "def")
    (batch,) = pack(documents, letters, PackingConfig(context=4, prepend_bos=False), 7, TextPosition(100, 2))
    assert batch.document_ids.tolist() == [[100, 100, 101, 101]]
    assert batch.token_ids.tolist() == [_ids("bcBd")]
    assert batch.after == TextPosition(101, 2)


@pytest.mark.parametrize(
    ("prepend_bos", "separator", "rows"),
    [
        (True, "bos", ["Babc", "BdeE", "Bfgh", "BijE"]),
        (False, "none", ["abcE", "deEE", "fghi", "jEEE"]),
        (True, "eos", ["BEab", "BcEE", "BEde", "BEfg", "Bhij"]),
    ],
)
def test_documents_keep_to_sequences_of_their_own_and_padding_is_no_content(
    letters: LanguageModel, prepend_bos: bool, separator: str, rows: list[str]
) -> None:
    config = PackingConfig(context=4, prepend_bos=prepend_bos, separator=separator, cross_documents=False)
    batches = list(pack(_listed("abc", "de", "fghij"), letters, config, 100))
    tokens, padding = batches[0].token_ids, batches[0].is_padding
    assert tokens.tolist() == [_ids(row) for row in rows]
    texts = [row.rstrip("E") for row in rows]
    assert padding is not None
    assert (~padding).sum(1).tolist() == [len(text) for text in texts]
    assert batches[0].is_content.tolist() == [[letter not in "BE" for letter in row] for row in rows]
    owner = [0 if set(row) & set("abc") else 1 if set(row) & set("de") else 2 for row in rows]
    assert batches[0].document_ids.tolist() == [[number] * 4 for number in owner]


def test_padding_is_no_content_even_where_special_tokens_are(letters: LanguageModel) -> None:
    config = PackingConfig(context=7, cross_documents=False, exclude_special_tokens=False)
    (batch,) = pack(_listed("abc", "defghi"), letters, config, 7)
    assert batch.is_content.tolist() == [[True] * 4 + [False] * 3, [True] * 7]


def test_the_padding_token_is_the_tokenizers_own_where_it_has_one(chatting: LanguageModel) -> None:
    (batch,) = pack(_listed("abc"), chatting, PackingConfig(context=7, cross_documents=False), 7)
    assert batch.token_ids.tolist() == [_ids("BabcPPP")]


def test_packing_across_documents_has_no_padding(letters: LanguageModel) -> None:
    assert all(batch.is_padding is None for batch in pack(_listed("abcd"), letters, PackingConfig(context=3), 1))


@pytest.mark.parametrize("prepend_bos", [True, False])
def test_the_first_position_can_be_left_out(letters: LanguageModel, prepend_bos: bool) -> None:
    settings = {"context": 3, "prepend_bos": prepend_bos, "separator": "none", "exclude_special_tokens": False}
    for exclude in (False, True):
        config = PackingConfig(**settings, exclude_first_position=exclude)
        (batch,) = pack(_listed("abcdef"), letters, config, 100)
        assert batch.is_content[:, 1:].all()
        assert batch.is_content[:, 0].all() == (not exclude)


@pytest.mark.parametrize("value", [1.0, 0.5, -7.0, float("nan")])
def test_a_norm_limit_that_would_leave_out_half_the_rows_is_refused(value: float) -> None:
    with pytest.raises(UserError, match=r"packing\.max_norm is a multiple of the median, so over 1, or 0 for off"):
        PackingConfig(max_norm=value)


def _chat(*turns: tuple[str, str]) -> Document:
    return Document("chat", "", messages=[{"role": role, "content": " ".join(text)} for role, text in turns])


def test_chats_are_rendered_by_the_template_and_its_special_tokens_are_no_content(chatting: LanguageModel) -> None:
    documents = [_chat(("user", "abc"), ("assistant", "de")), _chat(("user", "fgh"))]
    (batch,) = pack(documents, chatting, PackingConfig(context=9, cross_documents=False), 7)
    first = [B, 30, 31, *_ids("abc"), 30, 32, *_ids("de")]
    second = [B, 30, 31, *_ids("fgh")]
    assert batch.token_ids.tolist() == [first[:9], [B, first[9], *_ids("PPPPPPP")], [*second, *_ids("PPP")]]
    assert 30 in special_ids(chatting)
    assert batch.is_content[0].tolist() == [False, False, True, True, True, True, False, True, True]


def test_a_template_without_a_beginning_gets_the_separator(chatting: LanguageModel) -> None:
    chatting.tokenizer.chat_template = TEMPLATE.removeprefix("{{ '<bos>' }}")
    try:
        (batch,) = pack([_chat(("user", "abcd"))], chatting, PackingConfig(context=7), 1)
    finally:
        chatting.tokenizer.chat_template = TEMPLATE
    assert batch.token_ids.tolist() == [[B, 30, 31, *_ids("abcd")]]


def test_a_tokenizer_without_a_template_cannot_read_chats(letters: LanguageModel) -> None:
    with pytest.raises(UserError, match=r"text\.chat=true needs a tokenizer with a chat template"):
        next(pack([_chat(("user", "abc"))], letters, PackingConfig(context=3), 1))


def test_what_a_template_refuses_is_one_line(chatting: LanguageModel) -> None:
    chatting.tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    try:
        with pytest.raises(UserError, match="chat template does not take 'chat': roles must alternate"):
            next(pack([_chat(("user", "abc"))], chatting, PackingConfig(context=3), 1))
    finally:
        chatting.tokenizer.chat_template = TEMPLATE


def test_tokens_that_are_known_are_packed_as_they_are(letters: LanguageModel) -> None:
    texts = _listed("abc", "", "defgh")
    known = [Document(doc.name, "", token_ids=doc.token_ids) for doc in tokenised(texts, letters.tokenizer)]
    assert [ids.tolist() for _, _, _, ids in known] == [_ids("abc"), [], _ids("defgh")]
    short = [doc._replace(token_ids=doc.token_ids.astype(np.uint16)) for doc in known]
    for config in (PackingConfig(context=4), PackingConfig(context=4, cross_documents=False)):
        for expected, *again in zip(*(pack(form, letters, config, 2) for form in (texts, known, short)), strict=True):
            for batch in again:
                _assert_equal(expected, batch)
