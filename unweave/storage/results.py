"""What ``results.json`` and ``suites.json`` of a run hold: their types, from which they are written, read and checked.

``docs/results.schema.json`` and ``docs/suites.schema.json`` are these types as JSON schemas.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from unweave.errors import UserError
from unweave.formats.files import write_json

RESULTS = "results.json"
SUITES = "suites.json"
ANEW = "`unweave evaluate` on the run measures it anew"
Figures = Mapping[str, float | None]
"""Numbers by the name of their definition; null where one has no meaning."""
_BUILDING = Lock()
"""A server reads in several threads, and CPython 3.11 fails where two parse source at once, as docstrings are found."""
_strict = with_config(ConfigDict(extra="forbid", use_attribute_docstrings=True))


@_strict
@dataclass(frozen=True, kw_only=True)
class Basis:
    """What a figure stands on; its definition is the one of the same name."""

    version: int
    """Version of the definition; figures of other versions are not comparable."""
    n_tokens: int
    """Tokens that it was measured on."""
    n_documents: int
    """Documents that these tokens are from."""


@_strict
@dataclass(frozen=True, kw_only=True)
class Floor:
    """The figures of a coder that has learned nothing about latents, on the first of the tokens."""

    figures: Figures
    """By the same definitions as those of the run's coder."""
    standard_errors: Figures
    """By leaving out one block of documents at a time."""
    n_tokens: int
    """Tokens that it was measured on."""
    n_documents: int
    """Documents that these tokens are from."""


@_strict
@dataclass(frozen=True, kw_only=True)
class Bins:
    """A histogram."""

    edges: list[float]
    """Ends of the bins, one more than there are counts."""
    counts: list[int]
    """Number of things in each bin."""


@_strict
@dataclass(frozen=True, kw_only=True)
class Distributions:
    """How figures that are means are spread."""

    tokens_by_l0: list[int]
    """Number of tokens with 0, 1, 2, ... active latents."""
    latents_by_density: Bins
    """Latents by the decimal logarithm of the share of tokens on which they fire; dead ones are in the first bin."""


@_strict
@dataclass(frozen=True, kw_only=True)
class Results:
    """What was measured of a run's coder on held-out text."""

    figures: Figures
    """The figures, by the name of their definition; null where one has no meaning."""
    standard_errors: Figures
    """By leaving out one block of documents at a time; none with documents in fewer than two blocks."""
    basis: dict[str, Basis]
    """What each figure stands on."""
    floors: dict[str, Floor]
    """``random``, ``pca`` and ``identity`` of the same site and L0; empty for coders that they cannot stand in for."""
    seeds: dict[str, int]
    """What the figures depend on by chance: ``training``, ``resample_ablation`` and ``random_floor``."""
    distributions: Distributions
    """How L0 and density are spread."""
    n_tokens: int
    """Tokens for figures that need no splicing."""
    n_documents: int
    """Documents that these tokens are from."""
    n_latents: int
    """Latents of the coder."""
    d_model: int
    """Width of the rows that it writes."""
    measured_with: dict[str, str | int | float | bool]
    """The text, the device and the settings of the section ``[evaluation]``."""

    def flat(self) -> dict[str, Any]:
        """Figures beside all else, as plain values; NaN where a figure has no meaning."""
        rest = asdict(self)
        figures = rest.pop("figures")
        return {name: math.nan if value is None else value for name, value in figures.items()} | rest


@_strict
@dataclass(frozen=True, kw_only=True)
class SuiteFigures:
    """What a suite says of one coder."""

    figures: Figures
    """The figures, by the name of their definition; null where one has no meaning."""
    standard_errors: Figures
    """By leaving out one block of documents at a time; empty with documents in fewer than two blocks."""
    n: int
    """Examples that were measured on, over all tasks."""
    details: Figures
    """Parts of the figures, such as those of single tasks, by a name of their own."""
    definition_versions: dict[str, int] = field(default_factory=dict)
    """Version of the definition of each figure."""
    seeds: dict[str, int] = field(default_factory=dict)
    """What the figures depend on by chance: ``training``, ``suite`` and ``random_floor``."""


Suites = dict[str, dict[str, SuiteFigures]]
"""By suite, then by coder: the run's own name, ``random``, ``pca`` and ``identity``."""


def read_results(folder: Path) -> Results:
    """The results of a run; raises ``UserError`` where they are missing, damaged or of an older layout."""
    return _read(folder / RESULTS, Results)


def read_suites(folder: Path) -> Suites:
    """What suites have found of a run; empty where none was measured."""
    return _read(folder / SUITES, Suites) if (folder / SUITES).is_file() else {}


def write_results(folder: Path, results: Results) -> None:
    """Write ``results.json``."""
    write_json(folder / RESULTS, asdict(results))


def write_suites(folder: Path, suites: Mapping[str, Mapping[str, SuiteFigures]]) -> None:
    """Write ``suites.json``."""
    plain = {suite: {name: asdict(its) for name, its in of.items()} for suite, of in suites.items()}
    write_json(folder / SUITES, plain)


def schema(kind: Any, title: str) -> dict[str, Any]:
    """The JSON schema of ``Results`` or ``Suites``."""
    made = _adapter(kind).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": title}


@cache
def _adapter(kind: Any) -> Any:
    with _BUILDING:
        return TypeAdapter(kind)


def _read(path: Path, kind: Any) -> Any:
    try:
        return _adapter(kind).validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{str(path.parent)!r} has no {path.name}; {ANEW}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        what = f"{problem['msg'].lower()} at {where!r}" if where else "it is no JSON"
        raise UserError(f"{str(path)!r} is damaged, or of another version ({what}); {ANEW}") from error
