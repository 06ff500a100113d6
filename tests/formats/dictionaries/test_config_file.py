"""Settings out of JSON and YAML come typed, and errors say what came and what was expected."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unweave.errors import UserError
from unweave.formats.dictionaries.config_file import (
    choice,
    flag,
    integer,
    number,
    peek,
    read_json_object,
    read_yaml_object,
    section,
    text,
    texts,
)

HERE = Path("here")


def test_objects_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"k": 5}')
    (tmp_path / "a.yaml").write_text("k: 5\nname: x\n")
    assert read_json_object(tmp_path / "a.json") == {"k": 5} == peek(tmp_path / "a.json")
    assert read_yaml_object(tmp_path / "a.yaml") == {"k": 5, "name": "x"} == peek(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"[1]", "holds list, expected settings by name"),
        (b'"text"', "holds str"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"9" * 10_000, "no JSON"),
    ],
)
def test_what_is_no_object_of_json_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_json_object(tmp_path / "a.json")
    assert "\n" not in str(error.value)
    assert peek(tmp_path / "a.json") == {}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"- 1", b"1: 2", b"a: !!python/object/apply:os.system ['touch ran']", b"a: *b", b"\x00", b"[" * 9999],
)
def test_what_is_no_mapping_of_yaml_is_refused_and_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(UserError) as error:
        read_yaml_object(tmp_path / "a.yaml")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_not_there_or_far_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no 'a.json' in .*; give the folder"):
        read_json_object(tmp_path / "a.json")
    with pytest.raises(UserError, match="cannot read"):
        read_json_object(tmp_path)
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(UserError, match="1073741824 bytes, which is no config"):
        read_json_object(tmp_path / "a.json")


GETTERS: list[tuple[Callable[..., Any], Any, Any]] = [
    (integer, 5, 5),
    (integer, 5.0, 5),
    (number, 5, 5.0),
    (number, 0.5, 0.5),
    (text, "x", "x"),
    (flag, False, False),
    (section, {"a": 1}, {"a": 1}),
    (texts, ["a", "b"], ["a", "b"]),
]


@pytest.mark.parametrize(("getter", "value", "right"), GETTERS)
def test_a_value_of_the_right_kind_is_given(getter: Callable[..., Any], value: Any, right: Any) -> None:
    found = getter({"key": value}, "key", HERE)
    assert found == right and type(found) is type(right)
    assert getter({"key": None}, "key", HERE, right) == right == getter({}, "key", HERE, right)


WRONG = [None, True, "x", 1, 0.5, float("nan"), float("inf"), 10**400, {}, [], [1], "y" * 99]


@pytest.mark.parametrize("getter", [integer, number, text, flag, section, texts])
@pytest.mark.parametrize("value", WRONG)
def test_a_value_of_another_kind_is_an_error_that_names_it(getter: Callable[..., Any], value: Any) -> None:
    kinds = {integer: int, number: (int, float), text: str, flag: bool, section: dict, texts: list}[getter]
    fits = isinstance(value, kinds) and (getter is flag or not isinstance(value, bool))
    if fits and value == value and value not in (float("inf"), 10**400, [1]):
        assert getter({"key": value}, "key", HERE) == value
    elif value == 10**400 and getter is integer:
        assert integer({"key": value}, "key", HERE) == value
    else:
        with pytest.raises(UserError, match="'key' in 'here' is") as error:
            getter({"key": value}, "key", HERE)
        assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_a_choice_is_among_what_is_known() -> None:
    assert choice({"key": "a"}, "key", HERE, ("a", "b")) == "a" == choice({}, "key", HERE, ("a", "b"), "a")
    with pytest.raises(UserError, match="'key' in 'here' is 'c', expected one of a, b"):
        choice({"key": "c"}, "key", HERE, ("a", "b"))
