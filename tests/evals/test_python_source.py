"""What stands where in a few lines of Python, told by hand."""

import numpy as np
import pytest

from unweave.evals.python_source import IDENTIFIERS, LETTERS, TOKEN_CLASSES, Source, first_letters
from unweave.evals.tasks import CONTINUES, UNLABELLED

TEXT = '''"""What a module is for."""
import knots
# first the warp,
#   then the weft

def tie(n):  # twice
    """Ties n knots.

    One by one."""
    return knots.tie("ü", 7 + n)
class Cloth:
    pass
'''


def _marked(labels: np.ndarray, label: int) -> list[str]:
    """Stretches of the text with a label."""
    text = "".join(char if found == label else "\0" for char, found in zip(TEXT, labels.tolist(), strict=True))
    return [part for part in text.split("\0") if part]


def test_pieces_are_code_docstrings_and_comments_without_their_signs() -> None:
    pieces = list(Source(TEXT).pieces(5, 100))
    assert [piece.text for piece in pieces if piece.kind == "docstring"] == [
        "What a module is for.",
        "Ties n knots.\n\n    One by one.",
    ]
    assert [piece.text for piece in pieces if piece.kind == "comment"] == ["first the warp,\nthen the weft"]
    assert [piece.text for piece in pieces if piece.kind == "code"] == [
        "import knots",
        '    return knots.tie("ü", 7 + n)\nclass Cloth:\n    pass',
    ]


def test_a_piece_is_cut_at_a_line_end() -> None:
    texts = [piece.text for piece in Source(TEXT).pieces(20, 36) if piece.kind == "code"]
    assert texts == ['    return knots.tie("ü", 7 + n)']


def test_every_character_has_the_class_of_its_token() -> None:
    labels = Source(TEXT).token_classes()
    assert _marked(labels, TOKEN_CLASSES.index("keyword")) == ["import", "def", "return", "class", "pass"]
    assert _marked(labels, TOKEN_CLASSES.index("number")) == ["7"]
    assert _marked(labels, TOKEN_CLASSES.index("string"))[2] == '"ü"'
    assert _marked(labels, TOKEN_CLASSES.index("comment")) == ["# first the warp,", "#   then the weft", "# twice"]
    assert _marked(labels, TOKEN_CLASSES.index("operator")) == ["(", "):", ".", "(", ",", "+", ")", ":"]
    assert _marked(labels, TOKEN_CLASSES.index("name")) == ["knots", "tie", "n", "knots", "tie", "n", "Cloth"]


def test_names_stand_for_what_the_file_makes_of_them() -> None:
    labels = Source(TEXT).identifiers()
    assert _marked(labels, IDENTIFIERS.index("module")) == ["knots", "knots"]
    assert _marked(labels, IDENTIFIERS.index("function")) == ["tie"]
    assert _marked(labels, IDENTIFIERS.index("attribute")) == ["tie"]
    assert _marked(labels, IDENTIFIERS.index("class")) == ["Cloth"]


def test_strings_are_inside_with_their_quotes() -> None:
    labels = Source(TEXT).inside_strings()
    assert _marked(labels, 1) == ['"""What a module is for."""', '"""Ties n knots.\n\n    One by one."""', '"ü"']


def test_a_word_has_its_first_letter_where_it_begins() -> None:
    labels = first_letters("So, a Über knot")
    assert labels.tolist() == [
        LETTERS.index("s"), CONTINUES, *[UNLABELLED] * 5, LETTERS.index("b"), CONTINUES, CONTINUES, UNLABELLED,
        LETTERS.index("k"), *[CONTINUES] * 3,
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["def f(:\n  '''", "if x:\n        a\n    b\n", "x = '''"])
def test_what_python_cannot_read_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Source(text)
