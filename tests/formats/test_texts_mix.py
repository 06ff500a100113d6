"""Several sources in turn, documents from any number on, and settings that have no effect."""

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unweave.config import build
from unweave.errors import UserError
from unweave.formats.documents import ListedDocuments, Stream, StreamedDocuments
from unweave.formats.mixture import MixedDocuments, Turns
from unweave.formats.texts import TextConfig, read_corpus
from unweave.types import Document

weights = st.lists(st.floats(0.01, 100).map(lambda weight: round(weight, 2)), min_size=1, max_size=7)


def _listed(name: str, n: int) -> ListedDocuments:
    return ListedDocuments(name, tuple(Document(f"{name}#{i}", f"{name} {i}") for i in range(n)))


def _unknown(name: str, n: int) -> StreamedDocuments:
    """A stream that does not tell how long it is."""
    listed = _listed(name, n).documents
    stream = Stream(name, lambda start: iter(listed[start:]), lambda number: f"{name}#{number}", None, name)
    return StreamedDocuments(stream, lambda number: True)


@given(weights)
def test_after_any_number_of_turns_every_source_had_its_share_to_within_one(weights: list[float]) -> None:
    counts: Counter[int] = Counter()
    for n, source in enumerate(itertools.islice(Turns(weights).starting(0), 700), start=1):
        counts[source] += 1
        for i, weight in enumerate(weights):
            assert abs(counts[i] - n * weight / sum(weights)) < 1 + 1e-9


@given(weights, st.integers(0, 1000))
def test_turns_go_on_from_any_number(weights: list[float], start: int) -> None:
    turns = Turns(weights)
    all_turns = list(itertools.islice(turns.starting(0), start + 63))
    assert list(itertools.islice(turns.starting(start), 63)) == all_turns[start:]
    assert turns.after(start) == [all_turns[:start].count(i) for i in range(len(weights))]


def test_turns_of_simple_weights_are_as_by_hand() -> None:
    assert list(itertools.islice(Turns([1.0, 1.0]).starting(0), 5)) == [0, 1, 0, 1, 0]
    assert sorted(itertools.islice(Turns([0.7, 0.3]).starting(0), 10)) == [0] * 7 + [1] * 3
    assert list(itertools.islice(Turns([7.0]).starting(0), 3)) == [0, 0, 0]


@pytest.mark.parametrize("make", [_listed, _unknown])
@pytest.mark.parametrize(
    ("sizes", "weights"), [((7, 100), (1.0, 1.0)), ((63, 7), (0.25, 0.75)), ((5, 9, 1), (3.0, 2.0, 1.0))]
)
def test_one_pass_reads_every_source_to_its_end_and_short_ones_again(make, sizes: tuple, weights: tuple) -> None:
    sources = tuple(make(f"s{i}", size) for i, size in enumerate(sizes))
    mixed = MixedDocuments(sources, weights)
    names = [document.name for document in mixed]
    assert {f"s{i}#{number}" for i, size in enumerate(sizes) for number in range(size)} == set(names)
    assert mixed.count == (len(names) if make is _listed else None)
    for i, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
        numbers = [int(name.split("#")[1]) for name in names if name.startswith(f"s{i}#")]
        assert numbers == [number % size for number in range(len(numbers))]
        assert len(numbers) == pytest.approx(len(names) * weight / sum(weights), abs=1)
    if make is _listed:
        assert list(itertools.islice(mixed.names(), len(names))) == names


@pytest.mark.parametrize("make", [_listed, _unknown])
@pytest.mark.parametrize("start", [0, 1, 63, 100, 1000])
def test_a_mixture_goes_on_from_any_document(make, start: int) -> None:
    mixed = MixedDocuments((make("a", 7), make("b", 100), make("c", 3)), (1.0, 2.5, 0.7))
    expected = list(itertools.islice(mixed.forever(), start, start + 200))
    assert list(itertools.islice(mixed.forever(start), 200)) == expected


@pytest.mark.parametrize("make", [_listed, _unknown])
def test_a_source_that_ends_early_is_told_of_once(make) -> None:
    told: list[str] = []
    mixed = MixedDocuments((make("short", 7), make("long", 1000)), (1.0, 1.0))
    list(itertools.islice(mixed.forever(0, told.append), 100))
    assert told == ["text 'short' has ended after 7 documents and is read again from its start"]


@pytest.mark.parametrize("make", [_listed, _unknown])
def test_an_empty_source_is_an_error_and_no_endless_loop(make) -> None:
    with pytest.raises(UserError, match="text 'none' has no documents to read"):
        next(make("none", 0).forever())
    mixed = MixedDocuments((make("none", 0), make("some", 7)), (1.0, 1.0))
    with pytest.raises(UserError, match="no documents to read"):
        list(mixed)
    with pytest.raises(UserError, match="no documents to read"):
        list(itertools.islice(mixed.forever(), 7))


@pytest.mark.parametrize("make", [_listed, _unknown])
@pytest.mark.parametrize("start", [0, 6, 7, 8, 700, 701])
def test_repetition_is_counted_on_from_any_document(make, start: int) -> None:
    names = [document.name for document in itertools.islice(make("a", 7).forever(start), 15)]
    assert names == [f"a#{number % 7}" for number in range(start, start + 15)]


def _write(path: Path, n: int) -> str:
    path.write_text("\n".join(json.dumps({"text": f"{path.stem} {i}"}) for i in range(n)))
    return str(path)


def test_a_mixture_is_read_from_settings_and_never_mixes_the_two_parts(tmp_path: Path) -> None:
    mix = [{"source": _write(tmp_path / "a.jsonl", 100), "weight": 3}, {"source": _write(tmp_path / "b.jsonl", 63)}]
    config = build(TextConfig, {"mix": mix, "held_out": 0.2})
    assert [source.weight for source in config.sources()] == [3.0, 1.0]
    corpus = read_corpus(config)
    train, held_out = ({document.text for document in side} for side in corpus)
    assert not train & held_out
    assert len(train | held_out) == 163
    kinds = Counter(document.name.split(".")[0] for document in itertools.islice(corpus.train.forever(), 100))
    assert kinds == {"a": 75, "b": 25}
    assert corpus.sha256() == read_corpus(config).sha256()
    mix[0]["weight"] = 2
    assert read_corpus(build(TextConfig, {"mix": mix, "held_out": 0.2})).sha256() != corpus.sha256()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"mix": [{"source": "a.txt", "weigth": 2}]}, r"unknown setting 'text\.mix\.0\.weigth'; did you mean 'weight'"),
        ({"mix": [{"weight": 2}]}, r"setting 'text\.mix\.0\.source' is missing"),
        (
            {"mix": [{"source": "a.txt", "weight": 0}]},
            r"the weight of 'a\.txt' in text\.mix is a number above 0, got 0",
        ),
        ({"mix": [{"source": "a.txt", "weight": -1}]}, r"is a number above 0, got -1"),
        ({"mix": [{"source": "a.txt"}], "source": "b.txt"}, r"text\.source has no effect beside text\.mix"),
        ({"mix": [{"source": "a.txt"}], "chat": True}, r"text\.chat has no effect beside text\.mix"),
        ({"source": "builtin:stdlib", "field": "body"}, r"text\.field has no effect on 'builtin:stdlib'; remove it"),
        ({"source": "builtin:stdlib", "held_out": 0.2}, r"text\.held_out has no effect on 'builtin:stdlib'"),
        ({"source": "a.jsonl", "subset": "en"}, r"text\.subset has no effect on 'a\.jsonl'"),
        ({"source": "tokens:a", "chat": True}, r"text\.chat has no effect on 'tokens:a'"),
        ({"source": "hf:a", "separator": "x"}, r"text\.separator has no effect on 'hf:a'"),
    ],
)
def test_settings_without_effect_or_meaning_are_refused(settings: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_corpus(build(TextConfig, settings, "text"))


def test_a_split_of_a_text_without_splits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"text\.split has no effect on '.*a\.jsonl', which has no splits"):
        read_corpus(TextConfig(source=_write(tmp_path / "a.jsonl", 7), split="test"))
