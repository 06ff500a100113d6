"""Errors that a user can cause, each one line that says what came, what was expected and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Something in the input is wrong and the message says how to put it right; the CLI ends with exit code 2."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint such as ``; did you mean 'resid_post'?`` for a name that is not among the known ones, or nothing."""
    matches = get_close_matches(name, list(known), n=3, cutoff=0.5)
    if not matches:
        return ""
    return "; did you mean " + " or ".join(repr(match) for match in matches) + "?"
