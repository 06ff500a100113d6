import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unweave.errors import UserError
from unweave.formats.texts import Corpus, TextConfig, read_corpus

PIECE = 10_000


def _read(path: Path, **settings: object) -> Corpus:
    return read_corpus(TextConfig(source=str(path), **settings))


def _in_reading_order(corpus: Corpus) -> list[str]:
    documents = [*corpus.train, *corpus.held_out]
    return [document.text for document in sorted(documents, key=lambda document: int(document.name.rpartition("#")[2]))]


def _lines(n: int) -> str:
    return "".join(f"line {i} of a long text, {'thread ' * (i % 7)}\n" for i in range(n))


def _write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize("end", ["", "no line end at the end", "\n\n  \n"])
def test_a_long_text_is_cut_at_line_ends_and_nothing_is_lost(tmp_path: Path, end: str) -> None:
    content = _lines(1000) + end
    pieces = _in_reading_order(_read(_write(tmp_path / "long.txt", content)))
    assert "".join(pieces) == content
    assert len(pieces) > 3
    for piece in pieces[:-1]:
        assert piece.endswith("\n")
        assert PIECE <= len(piece) < PIECE + 100


def test_a_line_that_is_longer_than_a_piece_is_not_cut(tmp_path: Path) -> None:
    content = "a" * 25_000 + "\n" + "b" * 100 + "\n"
    pieces = _in_reading_order(_read(_write(tmp_path / "wide.txt", content)))
    assert pieces == ["a" * 25_000 + "\n", "b" * 100 + "\n"]


@given(st.lists(st.integers(1, 3 * PIECE), min_size=1, max_size=7))
def test_cutting_loses_nothing_whatever_the_lengths_of_the_lines(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int]
) -> None:
    content = "".join("x" * length + "\n" for length in [*lengths, PIECE, PIECE])
    pieces = _in_reading_order(_read(_write(tmp_path_factory.mktemp("cut") / "text.txt", content)))
    assert "".join(pieces) == content


def test_a_separator_divides_a_text_into_documents(tmp_path: Path) -> None:
    content = "first\n<|endoftext|>second\ntext<|endoftext|> \n<|endoftext|>third"
    corpus = _read(_write(tmp_path / "stories.txt", content), separator="<|endoftext|>")
    assert _in_reading_order(corpus) == ["first\n", "second\ntext", "third"]


def test_json_lines_are_one_document_each(tmp_path: Path) -> None:
    texts = ["first\nof two lines", "zweiter: Überwurf", "third"]
    content = "\n".join(json.dumps({"id": i, "text": text}) for i, text in enumerate(texts)) + "\n\n"
    assert _in_reading_order(_read(_write(tmp_path / "a.jsonl", content))) == texts


def test_json_lines_are_read_under_the_field_that_is_set(tmp_path: Path) -> None:
    content = "\n".join(json.dumps({"body": text, "text": "no"}) for text in ("one", "two"))
    assert _in_reading_order(_read(_write(tmp_path / "a.jsonl", content), field="body")) == ["one", "two"]


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85"])
def test_json_lines_end_at_line_feeds_only(tmp_path: Path, character: str) -> None:
    """Some writers leave these characters, which Unicode counts as line ends, as they are within a string."""
    texts = [f"one{character}two", "three"]
    content = "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    assert _in_reading_order(_read(_write(tmp_path / "a.jsonl", content))) == texts


def test_a_line_that_is_not_json_is_named(tmp_path: Path) -> None:
    file = _write(tmp_path / "a.jsonl", '{"text": "one"}\n\n{"text": "two"\n{"text": "three"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl' line 3 is not JSON"):
        _read(file)


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ('{"texts": "one"}', r"; did you mean 'texts'\?"),
        ('{"body": "one"}', ""),
        ('{"text": 7}', " but '7'"),
        ('{"text": null}', " but 'None'"),
        ('["one"]', ""),
        ('"one"', ""),
    ],
)
def test_a_line_without_text_is_named_with_a_near_field(tmp_path: Path, line: str, hint: str) -> None:
    file = _write(tmp_path / "a.jsonl", '{"text": "one"}\n' + line + "\n")
    with pytest.raises(UserError, match=rf"line 2 has no text under 'text'{hint}.*set text\.field"):
        _read(file)


def test_a_folder_is_read_with_its_subfolders_and_only_its_text_files(tmp_path: Path) -> None:
    _write(tmp_path / "b.md", "in b\n")
    _write(tmp_path / "deep" / "a.txt", "in a\n")
    _write(tmp_path / "deep" / "c.jsonl", '{"text": "in c"}\n')
    _write(tmp_path / "code.py", "in_code = 7\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff")
    corpus = _read(tmp_path)
    assert {document.name: document.text for document in [*corpus.train, *corpus.held_out]} == {
        "b.md#0": "in b\n",
        "deep/a.txt#0": "in a\n",
        "deep/c.jsonl#0": "in c",
        "code.py#0": "in_code = 7\n",
    }


def test_a_path_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no text '.*absent\.txt'; give a file, a folder, or builtin:stdlib"):
        _read(tmp_path / "absent.txt")


def test_a_folder_without_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"has no \.txt, \.md, \.py, \.jsonl, \.parquet, \.arrow file"):
        _read(tmp_path)


@pytest.mark.parametrize("content", ["", "\n", "  \n\t\n"])
def test_an_empty_file_is_an_error(tmp_path: Path, content: str) -> None:
    with pytest.raises(UserError, match=r"text '.*empty\.txt' is empty"):
        _read(_write(tmp_path / "empty.txt", content))


def test_a_single_document_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a single document, and one must be held out"):
        _read(_write(tmp_path / "short.txt", "one line\n"))


def test_bytes_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    file = tmp_path / "latin.txt"
    file.write_bytes("Knäuel".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.txt' is not UTF-8 text \(byte 2\)"):
        _read(file)


def test_an_unknown_builtin_text_is_an_error_with_the_near_name() -> None:
    with pytest.raises(UserError, match="there is no text 'builtin:stdlibs'; did you mean 'builtin:stdlib'"):
        read_corpus(TextConfig(source="builtin:stdlibs"))


def _many(tmp_path: Path, n: int) -> Path:
    return _write(tmp_path / "many.jsonl", "\n".join(json.dumps({"text": f"text {i}"}) for i in range(n)))


@pytest.mark.parametrize("share", [0.1, 0.001, 0.5, 0.99])
def test_the_split_is_disjoint_complete_and_of_about_the_share_asked_for(tmp_path: Path, share: float) -> None:
    corpus = _read(_many(tmp_path, 1000), held_out=share)
    train, held_out = {doc.text for doc in corpus.train}, {doc.text for doc in corpus.held_out}
    assert not train & held_out
    assert train | held_out == {f"text {i}" for i in range(1000)}
    assert len(corpus.held_out) == pytest.approx(1000 * share, abs=30)


def test_adding_documents_moves_none_from_one_part_to_the_other(tmp_path: Path) -> None:
    few, many = _read(_many(tmp_path, 200)), _read(_many(tmp_path, 1000))
    assert set(few.held_out) < set(many.held_out)
    assert set(few.train) < set(many.train)


def test_the_split_is_the_same_every_time_and_wherever_the_text_lies(tmp_path: Path) -> None:
    first = _read(_many(tmp_path, 63))
    assert _read(_many(tmp_path, 63)) == first
    assert _read(_many(tmp_path / "elsewhere", 63)) == first


def test_held_out_texts_come_from_all_over_the_file(tmp_path: Path) -> None:
    numbers = [int(doc.text.removeprefix("text ")) for doc in _read(_many(tmp_path, 1000)).held_out]
    assert min(numbers) < 100
    assert max(numbers) > 900
    assert 350 < sum(numbers) / len(numbers) < 650


@pytest.mark.parametrize("n_documents", [2, 3])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_both_sides_of_a_split_have_a_document(tmp_path: Path, n_documents: int, share: float) -> None:
    corpus = _read(_many(tmp_path, n_documents), held_out=share)
    assert corpus.train
    assert corpus.held_out


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 63.0])
def test_a_share_outside_zero_to_one_is_refused(share: float) -> None:
    with pytest.raises(UserError, match=rf"text\.held_out is a share between 0 and 1, got {share}"):
        TextConfig(held_out=share)
