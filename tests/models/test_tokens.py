import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from unweave.errors import UserError
from unweave.models.language_model import LanguageModel
from unweave.models.tokens import PackingConfig, check_context, pack, special_ids, token_texts
from unweave.types import Document, TokenBatch

LETTERS = "abcdefghijklmnopqrstuvwxyz"
B, E = 26, 27


@pytest.fixture(scope="module")
def letters(gpt2: LanguageModel) -> LanguageModel:
    """A model that reads letters: a is 0, b is 1, and so on, with a BOS of 26 and an EOS of 27."""
    vocabulary = {letter: i for i, letter in enumerate(LETTERS)} | {"<bos>": B, "<eos>": E, "?": 28}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>")
    return LanguageModel(gpt2.model, fast, "letters")


def _ids(text: str) -> list[int]:
    return [{"B": B, "E": E}.get(letter, ord(letter) - ord("a")) for letter in text.replace(" ", "")]


def _documents(*texts: str) -> list[Document]:
    return [Document(f"text {i}", " ".join(text)) for i, text in enumerate(texts)]


def _packed(model: LanguageModel, documents: list[Document], config: PackingConfig, batch: int = 7) -> TokenBatch:
    batches = list(pack(documents, model, config, batch))
    fields = ("token_ids", "document_ids", "is_content")
    return TokenBatch(*(torch.cat([getattr(batch, field) for batch in batches]) for field in fields))


@pytest.mark.parametrize(
    ("prepend_bos", "separator", "rows", "owners"),
    [
        # B abc | B de | B fghij: every row but the third starts with a BOS of its own
        (True, "bos", ["Babc", "BdeB", "Bfgh"], [[0, 0, 0, 0], [1, 1, 1, 2], [2, 2, 2, 2]]),
        (False, "bos", ["Babc", "BdeB", "fghi"], [[0, 0, 0, 0], [1, 1, 1, 2], [2, 2, 2, 2]]),
        # E abc | E de | E fghij, each row with a BOS in front that belongs to the token behind it
        (True, "eos", ["BEab", "BcEd", "BeEf", "Bghi"], [[0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 2, 2], [2, 2, 2, 2]]),
        (False, "eos", ["Eabc", "EdeE", "fghi"], [[0, 0, 0, 0], [1, 1, 1, 2], [2, 2, 2, 2]]),
        (True, "none", ["Babc", "Bdef", "Bghi"], [[0, 0, 0, 0], [1, 1, 1, 2], [2, 2, 2, 2]]),
        (False, "none", ["abcd", "efgh"], [[0, 0, 0, 1], [1, 2, 2, 2]]),
    ],
)
def test_three_texts_are_packed_as_by_hand(
    letters: LanguageModel, prepend_bos: bool, separator: str, rows: list[str], owners: list[list[int]]
) -> None:
    config = PackingConfig(context=4, prepend_bos=prepend_bos, separator=separator)
    packed = _packed(letters, _documents("abc", "de", "fghij"), config)
    assert packed.token_ids.tolist() == [_ids(row) for row in rows]
    assert packed.document_ids.tolist() == owners
    assert packed.is_content.tolist() == [[letter not in "BE" for letter in row] for row in rows]


def test_special_tokens_can_be_content(letters: LanguageModel) -> None:
    config = PackingConfig(context=4, exclude_special_tokens=False)
    assert _packed(letters, _documents("abc", "def"), config).is_content.all()


def test_a_bos_that_begins_a_row_by_itself_is_not_doubled(letters: LanguageModel) -> None:
    packed = _packed(letters, _documents("abc", "def", "ghi"), PackingConfig(context=4))
    assert packed.token_ids.tolist() == [_ids(row) for row in ("Babc", "Bdef", "Bghi")]


def test_a_text_that_is_empty_still_has_its_separator(letters: LanguageModel) -> None:
    packed = _packed(letters, _documents("ab", "", "c"), PackingConfig(context=3, prepend_bos=False))
    assert packed.token_ids.tolist() == [_ids("Bab"), _ids("BBc")]
    assert packed.document_ids.tolist() == [[0, 0, 0], [1, 2, 2]]


@given(
    st.lists(st.text(LETTERS, max_size=20), min_size=1, max_size=70),
    st.integers(2, 9),
    st.booleans(),
    st.sampled_from(["bos", "eos", "none"]),
    st.integers(1, 7),
)
def test_every_token_comes_once_and_in_order_but_for_a_tail_shorter_than_a_row(
    letters: LanguageModel, texts: list[str], context: int, prepend_bos: bool, separator: str, batch: int
) -> None:
    sign = {"bos": "B", "eos": "E", "none": ""}[separator]
    stream = _ids("".join(sign + text for text in texts))
    owners = [i for i, text in enumerate(texts) for _ in sign + text]
    config = PackingConfig(context=context, prepend_bos=prepend_bos, separator=separator)
    done = 0
    try:
        batches = list(pack(_documents(*texts), letters, config, batch))
    except UserError:
        batches = []
    for i, packed in enumerate(batches):
        assert packed.token_ids.shape[1] == context
        assert len(packed.token_ids) == batch or i == len(batches) - 1
        for row, owner in zip(packed.token_ids.tolist(), packed.document_ids.tolist(), strict=True):
            assert not prepend_bos or row[0] == B
            is_added = prepend_bos and stream[done] != B
            row, owner = (row[1:], owner[1:]) if is_added else (row, owner)
            assert row == stream[done : done + len(row)]
            assert owner == owners[done : done + len(row)]
            done += len(row)
    assert len(stream) - done < context


def test_texts_are_counted_over_groups_that_are_tokenised_together(letters: LanguageModel) -> None:
    texts = [LETTERS[i % 26] * 3 for i in range(100)]
    packed = _packed(letters, _documents(*texts), PackingConfig(context=4))
    assert packed.document_ids.tolist() == [[i] * 4 for i in range(100)]
    assert packed.token_ids[63].tolist() == _ids("B" + texts[63])


def test_batches_have_the_size_asked_for_and_the_last_one_the_rest(letters: LanguageModel) -> None:
    batches = list(pack(_documents(*["abc"] * 100), letters, PackingConfig(context=4), batch=7))
    assert [len(batch.token_ids) for batch in batches] == [7] * 14 + [2]


def test_text_is_read_only_as_far_as_batches_are_taken(letters: LanguageModel) -> None:
    read = []

    def endless() -> object:
        while True:
            read.append(1)
            yield Document("again", "a b c")

    batches = pack(endless(), letters, PackingConfig(context=4), batch=7)
    assert len(next(batches).token_ids) == 7
    assert len(read) < 100


def test_tokens_of_a_real_tokenizer_spell_the_text(gpt2: LanguageModel, reader: str) -> None:
    config = PackingConfig(context=7, prepend_bos=False, separator="none")
    packed = _packed(gpt2, [Document("reader", reader)], config)
    spelled = gpt2.tokenizer.decode(packed.token_ids.flatten().tolist())
    assert reader.startswith(spelled.rstrip("\N{REPLACEMENT CHARACTER}"))
    assert len(spelled) > len(reader) - 40


@pytest.mark.parametrize("texts", [[], [""], ["a"]])
def test_a_text_shorter_than_one_sequence_is_an_error(letters: LanguageModel, texts: list[str]) -> None:
    with pytest.raises(UserError, match="fewer than one sequence of 7"):
        list(pack(_documents(*texts), letters, PackingConfig(context=7), batch=7))


def test_a_context_longer_than_the_model_is_an_error(letters: LanguageModel) -> None:
    check_context(letters, PackingConfig(context=63))
    with pytest.raises(UserError, match=r"packing\.context=64 is longer than the 63 tokens letters was made for"):
        check_context(letters, PackingConfig(context=64))
    with pytest.raises(UserError, match=r"packing\.context=64 is longer"):
        next(pack(_documents("abc"), letters, PackingConfig(context=64), batch=7))


@pytest.mark.parametrize("context", [1, 0, -7])
def test_a_context_without_room_for_text_is_an_error(context: int) -> None:
    with pytest.raises(UserError, match=rf"packing\.context must be at least 2 tokens, got {context}"):
        PackingConfig(context=context)


def test_a_model_without_tokenizer_cannot_read_text(gpt2: LanguageModel) -> None:
    mute = LanguageModel(gpt2.model, None, "mute")
    with pytest.raises(UserError, match="mute has no tokenizer files"):
        next(pack(_documents("abc"), mute, PackingConfig(context=7), batch=7))


def test_a_tokenizer_without_special_tokens_says_what_to_set(gpt2: LanguageModel) -> None:
    tokenizer = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(LETTERS)}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    plain = LanguageModel(gpt2.model, PreTrainedTokenizerFast(tokenizer_object=tokenizer), "plain")
    with pytest.raises(UserError, match=r'no bos token; set packing.prepend_bos=false and packing.separator="none"'):
        next(pack(_documents("abc"), plain, PackingConfig(context=3), batch=7))
    config = PackingConfig(context=3, prepend_bos=False, separator="none")
    assert _packed(plain, _documents("abc"), config).is_content.all()


def test_special_tokens_are_known(letters: LanguageModel, gpt2: LanguageModel) -> None:
    assert special_ids(letters) == [B, E]
    assert special_ids(gpt2) == [gpt2.tokenizer.eos_token_id]


def test_each_token_is_shown_as_text_of_its_own(gpt2: LanguageModel) -> None:
    ids = gpt2.tokenizer("over ünder", add_special_tokens=False)["input_ids"]
    texts = token_texts(gpt2, ids)
    assert len(texts) == len(ids)
    assert texts[0][0] == "o"
    assert any("\N{REPLACEMENT CHARACTER}" in text for text in texts), "a byte of ü alone is no character"
    assert "".join(texts).endswith("der")
