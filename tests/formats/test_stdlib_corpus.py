import json
import os
import subprocess
import sys
import zlib

import pytest

from unweave.formats.stdlib_corpus import is_held_out, stdlib_documents
from unweave.formats.texts import TextConfig, read_corpus
from unweave.types import Document


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return stdlib_documents()


def test_the_library_and_the_language_topics_are_read(documents: list[Document]) -> None:
    by_name = {document.name: document.text for document in documents}
    assert "def dumps(" in by_name["json.__init__"]
    assert "class Counter(dict)" in by_name["collections.__init__"]
    assert "with" in by_name["topic.with"]
    assert len(by_name) == len(documents), "two documents have the same name"
    assert sum(len(text) for text in by_name.values()) > 5_000_000
    assert not any("site-packages" in name for name in by_name)


def test_documents_come_in_a_mixed_order(documents: list[Document]) -> None:
    names = [document.name for document in documents]
    assert names == [document.name for document in stdlib_documents()]
    assert names != sorted(names)


@pytest.mark.parametrize(
    "names",
    [
        ("json.decoder", "json.__init__", "test.test_json.test_decode", "_json", "_json.help"),
        ("asyncio.base_events", "test.test_asyncio.test_base_events", "_asyncio.help"),
        ("random", "test.test_random", "_random.help"),
        ("zipfile", "test.test_zipfile"),
        ("unittest.mock", "unittest.test.testmock.testmock"),
    ],
)
def test_a_module_and_its_tests_fall_on_the_same_side(names: tuple[str, ...]) -> None:
    assert len({is_held_out(name) for name in names}) == 1


def test_every_module_of_this_library_falls_on_the_side_of_its_tests(documents: list[Document]) -> None:
    names = {document.name for document in documents}
    n_pairs = 0
    for name in names:
        top = name.split(".")[0]
        if f"test.test_{top}" in names:
            assert is_held_out(name) == is_held_out(f"test.test_{top}"), name
            n_pairs += 1
    if not any(name.startswith("test.test_") for name in names):
        pytest.skip("this Python was installed without its test suite")
    assert n_pairs > 50


def test_about_one_module_in_sixteen_is_held_out(documents: list[Document]) -> None:
    tops = {document.name.split(".")[0] for document in documents if not document.name.startswith(("test.", "topic."))}
    assert 0.02 < sum(is_held_out(top) for top in tops) / len(tops) < 0.12


def test_which_modules_are_held_out_does_not_change() -> None:
    """By the CRC-32 of the name: 1 in 16 of these, written down once."""
    names = ["json", "asyncio", "random", "zipfile", "argparse", "decimal", "email", "logging", "pickle", "typing"]
    assert [name for name in names if zlib.crc32(name.encode()) % 16 == 0] == [
        name for name in names if is_held_out(name)
    ]


def test_what_is_held_out_is_never_trained_on() -> None:
    corpus = read_corpus(TextConfig())
    train, held_out = {document.name for document in corpus.train}, {document.name for document in corpus.held_out}
    assert len(train) > 500
    assert len(held_out) > 20
    assert not train & held_out
    assert not any(is_held_out(name) for name in train)
    assert all(is_held_out(name) for name in held_out)
    long_train, long_held_out = ({d.text for d in part if len(d.text) > 200} for part in corpus)
    assert not long_train & long_held_out, "more than a few lines of boilerplate are on both sides"


SUMMARY = (
    "import json, zlib; from unweave.formats.stdlib_corpus import stdlib_documents;"
    "print(json.dumps([(d.name, zlib.crc32(d.text.encode())) for d in stdlib_documents()]))"
)


def test_the_corpus_does_not_depend_on_the_process_that_reads_it(documents: list[Document]) -> None:
    """The same texts with other arguments, variables and imported modules; else no run could be repeated."""
    env = os.environ | {"AAA_SECRET": "63", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-X", "faulthandler", "-c", SUMMARY, "other", "arguments"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    elsewhere = dict(json.loads(answer.stdout))
    here = {document.name: zlib.crc32(document.text.encode()) for document in documents}
    assert sorted(elsewhere.keys() ^ here.keys()) == []
    assert [name for name in here if here[name] != elsewhere[name]] == []


def test_the_corpus_holds_nothing_of_the_machine_it_is_read_on(documents: list[Document]) -> None:
    """Help pages print the values of a module's data, among them this process's variables, arguments and paths."""
    pages = {document.name: document.text for document in documents if document.name.endswith(".help")}
    assert [
        name for name, text in pages.items() if "environ = {" in text or "\n    argv = " in text or sys.prefix in text
    ] == []
