"""Texts in tables: .parquet, .arrow, folders written by save_to_disk, and what ``datasets`` streams."""

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from unweave.errors import UserError
from unweave.formats.documents import Corpus, place
from unweave.formats.texts import TextConfig, read_corpus
from unweave.types import Document

N = 700
TEXTS = [f"row {i}: Überwurf \u2028 {'thread ' * (i % 7)}" for i in range(N)]


def _read(source: Path | str, **settings: object) -> Corpus:
    return read_corpus(TextConfig(source=str(source), **settings))


def _columns(texts: list) -> pa.Table:
    return pa.table({"id": pa.array(range(len(texts)), pa.int64()), "text": pa.array(texts, pa.string())})


def _parquet(folder: Path) -> Path:
    pq.write_table(_columns(TEXTS), folder / "many.parquet", row_group_size=63)
    return folder / "many.parquet"


def _arrow_stream(folder: Path) -> Path:
    with pa.ipc.new_stream(folder / "many.arrow", _columns([]).schema) as writer:
        writer.write_table(_columns(TEXTS), max_chunksize=300)
    return folder / "many.arrow"


def _arrow_file(folder: Path) -> Path:
    with pa.ipc.new_file(folder / "many.arrow", _columns([]).schema) as writer:
        writer.write_table(_columns(TEXTS), max_chunksize=63)
    return folder / "many.arrow"


def _saved(folder: Path) -> Path:
    datasets.Dataset.from_dict({"id": list(range(N)), "text": TEXTS}).save_to_disk(folder / "saved")
    return folder / "saved"


def _folder(folder: Path) -> Path:
    (folder / "parts" / "deep").mkdir(parents=True)
    (folder / "parts" / "README.md").write_text("About the table.\n")
    pq.write_table(_columns(TEXTS[:100]), folder / "parts" / "a.parquet", row_group_size=7)
    pq.write_table(_columns([]), folder / "parts" / "b.parquet")
    pq.write_table(_columns(TEXTS[100:]), folder / "parts" / "deep" / "c.parquet")
    return folder / "parts"


def _for_datasets(folder: Path) -> str:
    (folder / "plain").mkdir()
    lines = [json.dumps({"id": i, "text": text}) for i, text in enumerate(TEXTS)]
    (folder / "plain" / "train.jsonl").write_text("\n".join(lines))
    return f"hf:{folder / 'plain'}"


KINDS = [_parquet, _arrow_stream, _arrow_file, _saved, _folder, _for_datasets]
Make = Callable[[Path], Path]


def _number(document: Document) -> int:
    return int(document.text.split(":")[0].removeprefix("row "))


@pytest.mark.parametrize("make", KINDS)
def test_every_row_is_a_document_on_one_side_in_its_own_order(tmp_path: Path, make: Make) -> None:
    corpus = _read(make(tmp_path))
    train, held_out = ([_number(document) for document in side] for side in corpus)
    assert sorted(train + held_out) == list(range(N))
    assert train == sorted(train)
    assert held_out == sorted(held_out)
    assert len(held_out) == pytest.approx(70, abs=25)
    assert [doc.text for doc in corpus.train] == [TEXTS[i] for i in train]


@pytest.mark.parametrize("make", KINDS)
def test_a_row_is_held_out_by_the_checksum_of_its_name(tmp_path: Path, make: Make) -> None:
    corpus = _read(make(tmp_path), held_out=0.3)
    assert all(place(document.name) < 0.3 for document in corpus.held_out)
    assert all(place(document.name) >= 0.3 for document in corpus.train)


@pytest.mark.parametrize("make", KINDS)
def test_names_and_counts_are_known_without_reading(tmp_path: Path, make: Make) -> None:
    for side in _read(make(tmp_path)):
        names = [document.name for document in side]
        assert list(itertools.islice(side.names(), len(names))) == names
        assert side.count == (None if make is _for_datasets else len(names))


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("start", [0, 1, 7, 62, 63, 100, 599, 700, 1300])
def test_a_table_is_read_on_from_any_document_over_its_repetitions(tmp_path: Path, make: Make, start: int) -> None:
    documents = _read(make(tmp_path)).train
    once = list(documents)
    expected = list(itertools.islice(itertools.cycle(once), start, start + 800))
    assert list(itertools.islice(documents.forever(start), 800)) == expected


@pytest.mark.parametrize("make", KINDS)
def test_two_texts_have_two_checksums(tmp_path: Path, make: Make) -> None:
    source = make(tmp_path)
    first = _read(source).sha256()
    assert _read(source).sha256() == first
    (tmp_path / "other").mkdir()
    if make in (_parquet, _arrow_stream):
        TEXTS.append("one more")
        try:
            assert _read(make(tmp_path / "other")).sha256() != first
        finally:
            TEXTS.pop()


@pytest.mark.parametrize("make", [_parquet, _arrow_stream, _arrow_file, _folder])
def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path, make: Make) -> None:
    message = r"(many|a)\.\w+' has no column 'texts'; did you mean 'text'\? \(it has id, text\); set text\.field"
    with pytest.raises(UserError, match=message):
        _read(make(tmp_path), field="texts")


def test_a_missing_column_of_a_data_set_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"saved' has no column 'txt'; did you mean 'text'"):
        _read(_saved(tmp_path), field="txt")
    with pytest.raises(UserError, match=r"plain' row \d+ has no text under 'txt'|plain' has no column 'txt'"):
        list(_read(_for_datasets(tmp_path), field="txt").train)


@pytest.mark.parametrize("make", [_parquet, _arrow_stream, _arrow_file, _saved, _for_datasets])
def test_a_column_of_numbers_is_no_text(tmp_path: Path, make: Make) -> None:
    with pytest.raises(UserError, match=r"row \d+ has no text under 'id' but '\d+'; set text\.field"):
        list(_read(make(tmp_path), field="id").train)


def test_an_empty_parquet_is_an_error(tmp_path: Path) -> None:
    pq.write_table(_columns([]), tmp_path / "none.parquet")
    with pytest.raises(UserError, match=r"text '.*none\.parquet' is empty"):
        _read(tmp_path / "none.parquet")


def test_a_missing_text_is_named_by_its_row(tmp_path: Path) -> None:
    pq.write_table(_columns([*TEXTS[:100], None, *TEXTS]), tmp_path / "gap.parquet", row_group_size=63)
    with pytest.raises(UserError, match=r"gap\.parquet' row 100 has no text under 'text' but 'None'; "):
        list(itertools.chain(*_read(tmp_path / "gap.parquet")))


@pytest.mark.parametrize("make", [_parquet, _arrow_stream, _arrow_file])
@pytest.mark.parametrize("left", [0, 7, 1000])
def test_a_cut_off_table_is_named_in_one_line(tmp_path: Path, make: Make, left: int) -> None:
    file = make(tmp_path)
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(UserError, match=r"many\.\w+' is damaged or no table \(.+\); make or copy it again") as error:
        list(_read(file).train)
    assert "\n" not in str(error.value)


def test_a_table_damaged_in_the_middle_is_named_when_it_is_read(tmp_path: Path) -> None:
    file = _parquet(tmp_path)
    data = bytearray(file.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 700] = bytes(700)
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"many\.parquet' (is damaged or no table|row \d+ has no text)"):
        list(itertools.chain(*_read(file)))


def test_a_damaged_saved_folder_is_named(tmp_path: Path) -> None:
    folder = _saved(tmp_path)
    for file in folder.glob("*.arrow"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"saved' is damaged or no table"):
        list(_read(folder).train)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_both_sides_of_a_small_table_have_a_document(tmp_path: Path, n: int) -> None:
    pq.write_table(_columns(TEXTS[:n]), tmp_path / "few.parquet")
    corpus = _read(tmp_path / "few.parquet", held_out=0.01)
    assert (corpus.train.count, corpus.held_out.count) == (n - 1, 1)


def test_a_split_of_a_saved_dictionary_is_read(tmp_path: Path) -> None:
    parts = {"train": TEXTS[:100], "test": TEXTS[100:107]}
    splits = {name: datasets.Dataset.from_dict({"text": texts}) for name, texts in parts.items()}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    for name, texts in parts.items():
        assert {doc.text for side in _read(tmp_path / "saved", split=name) for doc in side} == set(texts)
    with pytest.raises(UserError, match=r"no split 'tests'; did you mean 'test'.*\(it has train, test\); set text\.sp"):
        _read(tmp_path / "saved", split="tests")


def test_a_split_of_a_streamed_data_set_is_read(tmp_path: Path) -> None:
    source = _for_datasets(tmp_path)
    (tmp_path / "plain" / "test.jsonl").write_text("\n".join(json.dumps({"text": f"test {i}"}) for i in range(7)))
    texts = {doc.text for side in _read(source, split="test") for doc in side}
    assert texts == {f"test {i}" for i in range(7)}
    with pytest.raises(UserError, match=r"has no split 'validation' \(it has train, test\); set text\.split"):
        _read(source, split="validation")


def test_a_folder_with_json_lines_and_tables_is_ambiguous(tmp_path: Path) -> None:
    (_folder(tmp_path) / "more.jsonl").write_text('{"text": "one"}')
    with pytest.raises(UserError, match=r"has both \.jsonl files and tables"):
        _read(tmp_path / "parts")


CHATS = [[{"role": "user", "content": f"knot {i}?"}, {"role": "assistant", "content": "ja"}] for i in range(63)]


def _chat_jsonl(folder: Path) -> Path:
    (folder / "chats.jsonl").write_text("\n".join(json.dumps({"messages": chat}) for chat in CHATS))
    return folder / "chats.jsonl"


def _chat_parquet(folder: Path) -> Path:
    pq.write_table(pa.table({"messages": CHATS}), folder / "chats.parquet")
    return folder / "chats.parquet"


def _chat_saved(folder: Path) -> Path:
    datasets.Dataset.from_dict({"messages": CHATS}).save_to_disk(folder / "chats")
    return folder / "chats"


@pytest.mark.parametrize("make", [_chat_jsonl, _chat_parquet, _chat_saved])
def test_chats_are_read_as_turns(tmp_path: Path, make: Make) -> None:
    documents = [document for side in _read(make(tmp_path), chat=True) for document in side]
    assert len(documents) == 63
    for document in documents:
        assert document.messages == CHATS[int(document.name.rpartition("#")[2])]
        assert json.loads(document.text) == document.messages


@pytest.mark.parametrize("make", [_chat_jsonl, _chat_parquet, _chat_saved])
def test_chats_that_were_not_announced_say_what_to_set(tmp_path: Path, make: Make) -> None:
    with pytest.raises(UserError, match=r"has no text under 'messages'.*or text\.chat=true"):
        list(_read(make(tmp_path), field="messages").train)


@pytest.mark.parametrize(
    "value", ["text", [], ["text"], [{"role": "user"}], [{"role": "user", "content": 7}], None, {"role": "user"}]
)
def test_what_is_no_chat_is_named(tmp_path: Path, value: object) -> None:
    (tmp_path / "chats.jsonl").write_text("\n".join(json.dumps({"messages": m}) for m in (CHATS[0], value)))
    with pytest.raises(UserError, match=r"line 2 has no chat under 'messages'.*a list of turns"):
        _read(tmp_path / "chats.jsonl", chat=True)


def test_a_plain_text_holds_no_chats(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("user: hello")
    with pytest.raises(UserError, match=r"a\.txt' cannot hold chats"):
        _read(tmp_path / "a.txt", chat=True)


def test_a_hub_that_does_not_answer_is_one_line_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens on the discard port
    started = time.monotonic()
    with pytest.raises(UserError, match=r"the hub does not answer \(.+\), so data set 'weaver/knots' cannot") as error:
        _read("hf:weaver/knots")
    assert time.monotonic() - started < 10
    assert "\n" not in str(error.value)
    assert "save_to_disk" in str(error.value)


def test_a_folder_for_datasets_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder '.*absent' for text 'hf:"):
        _read(f"hf:{tmp_path / 'absent'}")


def test_a_folder_that_datasets_cannot_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"cannot read text 'hf:.*empty'.*check the id and text\.subset") as error:
        _read(f"hf:{tmp_path / 'empty'}")
    assert "\n" not in str(error.value)
