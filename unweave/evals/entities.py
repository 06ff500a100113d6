"""Entities with attributes, and templates that ask for each attribute: the tasks of RAVEL, from files or built in.

The built-in task needs no facts. Its entities are the most frequent names in Python's standard library, and an
attribute is what the model itself says next where a name stands in a certain place, say behind ``isinstance(x, ``. What
is asked is the same as for facts: which latents of a name decide one answer and leave the others alone?
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from unweave.errors import UserError
from unweave.evals.tasks import document_numbers, is_measured
from unweave.formats.ravel_files import SLOT, ravel_records
from unweave.types import Document

PLACES = {
    "assigned": ("    x = %s", "    result = %s"),
    "compared": ("    self.assertEqual(%s", "    self.assertIs(%s"),
    "class": ("isinstance(x, %s", "issubclass(y, %s"),
}
"""The attributes of the built-in task: two templates each, on whose answer the model has to agree with itself."""
_N_NAMES = 600
_NAME = re.compile(r"(?<![\w.])[A-Za-z]\w+")


@dataclass(frozen=True)
class EntityTask:
    """Entities of one kind, and how to ask for their attributes."""

    name: str
    entities: tuple[str, ...]
    templates: Mapping[str, tuple[str, ...]]
    """Attribute to prompts with one slot, ``%s``, for the entity."""
    values: Mapping[str, Mapping[str, str]] | None
    """Entity to attribute to value; None: the value is what the model says, where all templates agree."""
    is_test: Bool[np.ndarray, " E"]
    """Whether an entity is measured on; else latents are chosen by it."""

    def __post_init__(self) -> None:
        if twice := [entity for entity, count in Counter(self.entities).items() if count > 1]:
            raise UserError(f"task {self.name!r} has the entity {twice[0]!r} more than once; keep one of them")
        if len(self.templates) < 2:
            raise UserError(
                f"task {self.name!r} has {len(self.templates)} attributes; telling them apart needs two or more"
            )
        for attribute, templates in self.templates.items():
            if wrong := [template for template in templates if template.count(SLOT) != 1]:
                raise UserError(f"template {wrong[0]!r} of {attribute!r} has no single {SLOT} for the entity; mend it")
        for side in (False, True):
            if (n := int((self.is_test == side).sum())) < 2:
                raise UserError(
                    f"task {self.name!r} has {n} entities to {'measure on' if side else 'choose latents by'}; an "
                    "interchange needs two or more"
                )

    @property
    def documents(self) -> Int[np.ndarray, " E"]:
        """A number for each entity, by which it falls into a block."""
        return document_numbers(self.entities)


@dataclass(frozen=True, kw_only=True)
class EntityConfig:
    """Where entities are read from, and how many."""

    source: str
    """A folder with RAVEL's JSON files, or ``hf:`` and the id of a data set with its tables."""
    kind: str = ""
    """Kind of entity, such as city; empty: the only one of a folder."""
    n_entities: int = 800
    """Entities that are kept, spread over both sides."""
    n_templates: int = 6
    """Templates that are kept of each attribute."""


def builtin_entities(documents: Sequence[Document], n_names: int = _N_NAMES) -> EntityTask:
    """The built-in task, with the names that are most frequent in some documents."""
    counts: Counter[str] = Counter()
    for document in documents:
        if not document.name.startswith("topic."):
            counts.update(_NAME.findall(document.text))
    names = sorted(counts, key=lambda name: (-counts[name], name))[:n_names]
    return EntityTask("names", tuple(names), PLACES, None, np.array([is_measured(name) for name in names], dtype=bool))


def read_entities(config: EntityConfig) -> EntityTask:
    """A task of RAVEL's files; raises ``UserError`` where they are none.

    Entities of the split ``test`` are measured on, and those of ``train`` learned from; where there are no splits, a
    quarter of the entities is measured on.
    """
    records = ravel_records(config.source, config.kind)
    if records.splits:
        sides = {entity: split == "test" for entity, split in records.splits.items() if split in ("train", "test")}
    else:
        sides = {entity: is_measured(entity) for entity in records.values}
    entities = [entity for entity in _spread(list(records.values), config.n_entities) if entity in sides]
    templates = {name: tuple(_spread(found, config.n_templates)) for name, found in records.templates.items()}
    is_test = np.array([sides[entity] for entity in entities], dtype=bool)
    return EntityTask(records.kind, tuple(entities), templates, records.values, is_test)


def _spread(found: Sequence[str], at_most: int) -> list[str]:
    n = min(len(found), at_most)
    return [found[i * len(found) // n] for i in range(n)]
