"""A text as a file of tokens: the same batches without a tokenizer's work, and damage that is named."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from unweave.errors import UserError
from unweave.formats import token_file
from unweave.formats.documents import Corpus
from unweave.formats.texts import TextConfig, read_corpus
from unweave.formats.token_file import read_token_file, tokenizer_sha256, write_token_file
from unweave.models.language_model import LanguageModel
from unweave.models.tokenising import tokenised
from unweave.models.tokens import PackingConfig, pack
from unweave.types import Document


@pytest.fixture
def text(tmp_path: Path, reader: str) -> Corpus:
    (tmp_path / "weaver.txt").write_text("<end>".join(f"Kapitel {i}.\n{reader}" for i in range(63)))
    return read_corpus(TextConfig(source=str(tmp_path / "weaver.txt"), separator="<end>"))


def _written(path: Path, text: Corpus, model: LanguageModel, **settings: object) -> Path:
    train, held_out = (tokenised(side, model.tokenizer) for side in text)
    write_token_file(path, train, model.tokenizer, held_out=held_out, **settings)
    return path


def _pack(documents: object, model: LanguageModel) -> list:
    return list(pack(documents, model, PackingConfig(context=32), 7))


def test_tokens_from_a_file_make_the_same_batches_and_the_same_split(
    tmp_path: Path, text: Corpus, gpt2: LanguageModel
) -> None:
    path = _written(tmp_path / "deep" / "weaver.tokens", text, gpt2)
    corpus = read_corpus(TextConfig(source=f"tokens:{path}"), gpt2.tokenizer)
    for side, expected in zip(corpus, text, strict=True):
        assert [document.name for document in side] == list(side.names()) == list(expected.names())
        assert side.count == expected.count
        for ours, theirs in zip(_pack(side, gpt2), _pack(expected, gpt2), strict=True):
            assert torch.equal(ours.token_ids, theirs.token_ids)
            assert torch.equal(ours.document_ids, theirs.document_ids)
            assert ours.after == theirs.after
    assert [file.name for file in path.parent.iterdir()] == ["weaver.tokens"]


def test_reading_tokens_needs_no_text_and_maps_the_file(tmp_path: Path, text: Corpus, gpt2: LanguageModel) -> None:
    corpus = read_token_file(f"tokens:{_written(tmp_path / 'a', text, gpt2)}", 0.1)
    for document in corpus.train:
        assert document.text == ""
        assert document.token_ids is not None
        assert document.token_ids.dtype == np.uint16
        assert not document.token_ids.flags.owndata


def test_reading_goes_on_from_any_document(tmp_path: Path, text: Corpus, gpt2: LanguageModel) -> None:
    corpus = read_token_file(f"tokens:{_written(tmp_path / 'a', text, gpt2)}", 0.1)
    n = corpus.train.count
    names = list(corpus.train.names())
    for start in (0, 7, n - 1, n, 10 * n + 3):
        assert next(corpus.train.forever(start)).name == names[start % n]


def test_without_a_split_of_its_own_a_file_is_split_by_names(tmp_path: Path, gpt2: LanguageModel) -> None:
    documents = [Document(f"d#{i}", "", token_ids=np.arange(i)) for i in range(200)]
    write_token_file(tmp_path / "a", documents, gpt2.tokenizer)
    corpus = read_token_file(f"tokens:{tmp_path / 'a'}", 0.3)
    assert sorted(len(doc.token_ids) for side in corpus for doc in side) == list(range(200))
    assert corpus.held_out.count == pytest.approx(60, abs=20)


@given(
    st.lists(st.lists(st.integers(0, 299), max_size=70), min_size=2, max_size=20), st.sampled_from([2, 14, 64, 4096])
)
def test_any_tokens_come_back_whatever_the_size_of_a_block(
    tmp_path_factory: pytest.TempPathFactory, gpt2: LanguageModel, ids: list[list[int]], block: int
) -> None:
    path = tmp_path_factory.mktemp("tokens") / "ü.tokens"
    documents = [Document(f"ü\n{i}", "", token_ids=np.array(each, dtype=np.int64)) for i, each in enumerate(ids)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_file, "_BLOCK", block)
        n_tokens = write_token_file(path, documents[:-1], gpt2.tokenizer, held_out=documents[-1:])
    corpus = read_token_file(f"tokens:{path}", 0.1)
    back = [document for side in corpus for document in side]
    assert [document.token_ids.tolist() for document in back] == ids
    assert [document.name for document in back] == [f"ü {i}" for i in range(len(ids))]
    assert n_tokens == sum(map(len, ids))


def test_a_large_vocabulary_is_kept_in_four_bytes(tmp_path: Path, gpt2: LanguageModel) -> None:
    large = PreTrainedTokenizerFast(tokenizer_object=gpt2.tokenizer.backend_tokenizer)
    large.add_tokens([f"<{i}>" for i in range(2**16)])
    documents = [Document(name, "", token_ids=np.array([7, 65_700])) for name in "ab"]
    write_token_file(tmp_path / "a", documents, large)
    (document,) = read_token_file(f"tokens:{tmp_path / 'a'}", 0.1, large).train
    assert (document.token_ids.dtype, document.token_ids.tolist()) == (np.uint32, [7, 65_700])


def test_a_part_ends_with_the_document_that_reaches_the_limit(
    tmp_path: Path, text: Corpus, gpt2: LanguageModel
) -> None:
    corpus = read_token_file(f"tokens:{_written(tmp_path / 'a', text, gpt2, max_tokens=1000)}", 0.1)
    for side in corpus:
        sizes = [len(document.token_ids) for document in side]
        assert sum(sizes) >= 1000 > sum(sizes[:-1])


def test_another_tokenizer_is_refused_and_the_same_one_from_disk_is_not(
    tmp_path: Path, text: Corpus, gpt2: LanguageModel
) -> None:
    path = _written(tmp_path / "a", text, gpt2)
    gpt2.tokenizer.save_pretrained(tmp_path / "again")
    again = AutoTokenizer.from_pretrained(tmp_path / "again")
    again("a long text", truncation=True, max_length=1)  # the tokenizer remembers this
    assert tokenizer_sha256(again) == tokenizer_sha256(gpt2.tokenizer)
    read_token_file(f"tokens:{path}", 0.1, again)
    again.add_tokens(["weft"])
    with pytest.raises(UserError, match=r"tokens of '.*a' were made by another tokenizer than the model's"):
        read_token_file(f"tokens:{path}", 0.1, again)


def test_documents_without_tokens_cannot_be_written(tmp_path: Path, gpt2: LanguageModel) -> None:
    with pytest.raises(UserError, match=r"document 'a' has no tokens; pass tokenised\(documents, tokenizer\)"):
        write_token_file(tmp_path / "a", [Document("a", "text")], gpt2.tokenizer)
    with pytest.raises(UserError, match="has the token 70000, which the tokenizer lacks"):
        write_token_file(tmp_path / "a", [Document("a", "", token_ids=np.array([7, 70_000]))], gpt2.tokenizer)
    with pytest.raises(UserError, match="needs at least two documents, got 0"):
        write_token_file(tmp_path / "a", [], gpt2.tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_a_share_has_no_effect_on_a_file_with_its_own_split(tmp_path: Path, text: Corpus, gpt2: LanguageModel) -> None:
    with pytest.raises(UserError, match=r"text\.held_out has no effect on 'tokens:.*', which was split"):
        read_token_file(f"tokens:{_written(tmp_path / 'a', text, gpt2)}", 0.2)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file '.*absent' for text 'tokens:"):
        read_token_file(f"tokens:{tmp_path / 'absent'}", 0.1)


@pytest.mark.parametrize("content", [b"", b"text that is no tokens", os.urandom(1000)])
def test_another_file_is_no_file_of_tokens(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(UserError, match=r"a' is no file of tokens"):
        read_token_file(f"tokens:{tmp_path / 'a'}", 0.1)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_damaged(tmp_path: Path, text: Corpus, gpt2: LanguageModel, share: float) -> None:
    path = _written(tmp_path / "a", text, gpt2)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match="a' is damaged: its header"):
        read_token_file(f"tokens:{path}", 0.1)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.7, 0.9, 0.95, 0.99])
def test_a_single_wrong_bit_is_found(tmp_path: Path, text: Corpus, gpt2: LanguageModel, share: float) -> None:
    path = _written(tmp_path / "a", text, gpt2)
    data = bytearray(path.read_bytes())
    data[64 + int(share * (len(data) - 64))] ^= 4
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a' is damaged: its (header|list of documents|text from byte 64) is not"):
        list(read_token_file(f"tokens:{path}", 0.1).train)
