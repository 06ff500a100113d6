"""What stands where in Python source: its code, docstrings and comments, and the class of each character.

Read with Python's own ``tokenize``, so a text that the running Python cannot read has no labels.
"""

import io
import keyword
import re
import token as kinds
import tokenize
from collections.abc import Iterator
from tokenize import TokenInfo
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from unweave.evals.tasks import CONTINUES, UNLABELLED

PIECES = ("code", "docstring", "comment")
TOKEN_CLASSES = ("keyword", "name", "operator", "number", "string", "comment")
IDENTIFIERS = ("function", "class", "module", "attribute")
WHERE = ("outside", "inside")
"""Of a string."""
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")

_STRINGS = {kinds.STRING} | {
    getattr(kinds, name) for name in ("FSTRING_START", "FSTRING_MIDDLE", "FSTRING_END") if hasattr(kinds, name)
}
_QUOTES = re.compile(r"^[rRuU]*(\"\"\"|'''|\"|')(.*)\1$", re.DOTALL)
_WORD = re.compile(r"[A-Za-z]{2,}")


class Piece(NamedTuple):
    """A stretch of source of one kind."""

    kind: str
    text: str


class Source:
    """One Python file and its tokens."""

    def __init__(self, text: str) -> None:
        """Raises ``ValueError`` where Python cannot read it."""
        self.text = text
        try:
            self.tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
        except (tokenize.TokenError, SyntaxError) as error:
            raise ValueError(str(error)) from error
        lengths = [len(line) for line in io.StringIO(text)]
        self._starts = np.concatenate([[0], np.cumsum(lengths), [len(text)]]).astype(np.int64)

    def span(self, token: TokenInfo) -> slice:
        """The characters of a token."""
        (row, column), (end_row, end_column) = token.start, token.end
        return slice(int(self._starts[row - 1]) + column, int(self._starts[end_row - 1]) + end_column)

    def pieces(self, at_least: int, at_most: int) -> Iterator[Piece]:
        """Docstrings without quotes, comments without signs, and code without either, of about these characters."""
        docstrings = [token for token, before in self._with_previous() if _is_docstring(token, before)]
        for token in docstrings:
            inner = _QUOTES.match(token.string)
            if inner is not None:
                yield from _of_length(Piece("docstring", inner[2].strip()), at_least, at_most)
        own_line = [token for token in self.tokens if _is_own_line(token)]
        for text in _joined(own_line):
            yield from _of_length(Piece("comment", text), at_least, at_most)
        taken = {row for token in docstrings for row in range(token.start[0], token.end[0] + 1)}
        taken |= {token.start[0] for token in self.tokens if token.type == kinds.COMMENT}
        for text in _runs(self.text.splitlines(keepends=True), taken):
            yield from _of_length(Piece("code", text), at_least, at_most)

    def token_classes(self) -> Int[np.ndarray, " characters"]:
        """The place in ``TOKEN_CLASSES`` of each character."""
        labels = self._unlabelled()
        for token in self.tokens:
            name = _token_class(token)
            if name is not None:
                labels[self.span(token)] = TOKEN_CLASSES.index(name)
        return labels

    def inside_strings(self) -> Int[np.ndarray, " characters"]:
        """The place in ``WHERE`` of each character; quotes count as inside."""
        labels = np.zeros(len(self.text), dtype=np.int8)
        for token in self.tokens:
            if token.type in _STRINGS:
                labels[self.span(token)] = 1
        return labels

    def identifiers(self) -> Int[np.ndarray, " characters"]:
        """The place in ``IDENTIFIERS`` of names that the file defines or imports, and of names behind a dot."""
        labels = self._unlabelled()
        defined = self._defined()
        for token, before in self._with_previous():
            if token.type != kinds.NAME or keyword.iskeyword(token.string):
                continue
            is_attribute = before is not None and before.string == "."
            kind = "attribute" if is_attribute else defined.get(token.string)
            if kind is not None:
                labels[self.span(token)] = IDENTIFIERS.index(kind)
        return labels

    def _defined(self) -> dict[str, str]:
        """What names stand for in this file; the last to define one wins."""
        defined = {}
        for token, before in self._with_previous():
            if token.type == kinds.NAME and before is not None:
                if before.string in ("def", "class"):
                    defined[token.string] = "function" if before.string == "def" else "class"
                elif before.string == "import" and _begins_line(before):
                    defined[token.string] = "module"
        return defined

    def _with_previous(self) -> Iterator[tuple[TokenInfo, TokenInfo | None]]:
        """Each token and the one in front of it, blank lines and comments aside."""
        before = None
        for token in self.tokens:
            yield token, before
            if token.type not in (kinds.NL, kinds.COMMENT):
                before = token

    def _unlabelled(self) -> Int[np.ndarray, " characters"]:
        return np.full(len(self.text), UNLABELLED, dtype=np.int8)


def first_letters(text: str) -> Int[np.ndarray, " characters"]:
    """The place in ``LETTERS`` of the first letter of each word, at that letter alone."""
    labels = np.full(len(text), UNLABELLED, dtype=np.int8)
    for word in _WORD.finditer(text):
        labels[word.start()] = LETTERS.index(word[0][0].lower())
        labels[word.start() + 1 : word.end()] = CONTINUES
    return labels


def _token_class(token: TokenInfo) -> str | None:
    if token.type == kinds.NAME:
        return "keyword" if keyword.iskeyword(token.string) else "name"
    if token.type in _STRINGS:
        return "string"
    return {kinds.OP: "operator", kinds.NUMBER: "number", kinds.COMMENT: "comment"}.get(token.type)


def _is_docstring(token: TokenInfo, before: TokenInfo | None) -> bool:
    starts = before is None or before.type in (kinds.NEWLINE, kinds.INDENT, kinds.DEDENT)
    return token.type == kinds.STRING and starts


def _is_own_line(token: TokenInfo) -> bool:
    return token.type == kinds.COMMENT and not token.line[: token.start[1]].strip()


def _begins_line(token: TokenInfo) -> bool:
    return not token.line[: token.start[1]].strip()


def _joined(comments: list[TokenInfo]) -> Iterator[str]:
    """Comments of neighbouring lines as one text."""
    lines: list[str] = []
    last = 0
    for token in comments:
        if lines and token.start[0] != last + 1:
            yield "\n".join(lines)
            lines = []
        lines.append(token.string.lstrip("#! ").rstrip())
        last = token.start[0]
    if lines:
        yield "\n".join(lines)


def _runs(lines: list[str], taken: set[int]) -> Iterator[str]:
    """Neighbouring lines that are not taken; lines count from 1."""
    run: list[str] = []
    for number, line in enumerate(lines, start=1):
        if number in taken:
            if run:
                yield "".join(run)
            run = []
        else:
            run.append(line)
    if run:
        yield "".join(run)


def _of_length(piece: Piece, at_least: int, at_most: int) -> Iterator[Piece]:
    """The piece, cut at the last line end within ``at_most`` characters; nothing where it is too short."""
    text = piece.text.strip("\n")
    if len(text) > at_most:
        end = text.rfind("\n", 0, at_most)
        text = text[: end if end > 0 else at_most]
    if len(text.strip()) >= at_least:
        yield Piece(piece.kind, text)
