"""Where the rows of a training come from: a model that reads text, or a cache of what it once made of it."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, final

import torch

from unweave.activations.harvest import harvest
from unweave.activations.sequences import Sequences, sequences
from unweave.activations.shards import EVERYTHING, Shards
from unweave.errors import UserError, nearest
from unweave.formats.documents import Told
from unweave.pipelines.recipe import Plan, Recipe
from unweave.pipelines.workbench import Places, Workbench, device_of, set_up
from unweave.training.ranks import Ranks
from unweave.types import Part, Rows, TextPosition


class RowSource(ABC):
    """Rows at the sites of some coders, and the model and text to measure them with."""

    def __init__(self, recipe: Recipe, places: Mapping[str, Places], part: Part = EVERYTHING) -> None:
        """``places``: where each coder reads and writes. ``part``: this process' share of the rows."""
        self.recipe = recipe
        self.places = places
        self.part = part

    @property
    def sites(self) -> list[str]:
        """All sites whose rows are needed."""
        names = itertools.chain.from_iterable(places.reads + places.writes for places in self.places.values())
        return list(dict.fromkeys(names))

    @property
    def shares_model(self) -> bool:
        """See the recipe."""
        return self.recipe.shares_model

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where rows are, and coders."""

    @property
    @abstractmethod
    def model_name(self) -> str:
        """The language model whose activations the rows are."""

    @abstractmethod
    def width(self, site: str) -> int:
        """Width of the rows at a site."""

    @abstractmethod
    def rows(self, start: TextPosition) -> Iterator[Rows]:
        """Rows at all sites, without end, from a position that ``Rows.after`` gave, or from the start."""

    @abstractmethod
    def bench(self) -> Workbench:
        """The model and the text; raises ``UserError`` where they cannot be loaded."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What the manifest says of where the rows came from."""

    @cached_property
    def identity(self) -> str:
        """Checksum of what the rows are made of; a training goes on with the same alone."""
        return self._checksum()

    @abstractmethod
    def _checksum(self) -> str: ...

    @abstractmethod
    def describe(self) -> str:
        """One line for a person."""


@final
class ModelRows(RowSource):
    """Rows as the model makes them while it reads."""

    def __init__(
        self, bench: Workbench, places: Mapping[str, Places], told: Told | None = None, part: Part = EVERYTHING
    ) -> None:
        """``told`` hears of every text that ends and is read again."""
        super().__init__(bench.recipe, places, part)
        self._bench = bench
        self._told = told

    @property
    def device(self) -> torch.device:
        return self._bench.model.device

    @property
    def model_name(self) -> str:
        return self._bench.model.name

    def width(self, site: str) -> int:
        return self._bench.model.width(site)

    def rows(self, start: TextPosition) -> Iterator[Rows]:
        batches = self._bench.training_batches(start, self._told, self.part)
        return harvest(self._bench.model, batches, self.sites, max_norm=self.recipe.packing.max_norm)

    def sequences(self, start: TextPosition) -> Iterator[Sequences]:
        """The same text as ``rows`` before the model has read it, without end."""
        return sequences(self._bench.training_batches(start, self._told, self.part))

    def bench(self) -> Workbench:
        return self._bench

    def facts(self) -> dict[str, Any]:
        corpus = self._bench.corpus
        return {
            "device": str(self.device),
            "documents": {"train": corpus.train.count, "held_out": corpus.held_out.count},
            "text_sha256": self.identity,
        }

    def _checksum(self) -> str:
        return self._bench.corpus.sha256()

    def describe(self) -> str:
        documents = self._bench.corpus.train.count
        return f"{self.model_name} at {', '.join(self.sites)}, {documents or 'streamed'} documents to train on"


@final
class CachedRows(RowSource):
    """Rows that ``unweave harvest`` wrote; the model is not needed for them."""

    def __init__(self, recipe: Recipe, places: Mapping[str, Places], shards: Shards, part: Part = EVERYTHING) -> None:
        super().__init__(recipe, places, part)
        self._shards = shards

    @property
    def device(self) -> torch.device:
        return torch.device(device_of(self.recipe))

    @property
    def model_name(self) -> str:
        return self._shards.manifest.origin["model"]["name"]

    def width(self, site: str) -> int:
        return self._shards.manifest.sites[site]

    def rows(self, start: TextPosition) -> Iterator[Rows]:
        for rows in self._shards.rows_forever(self.sites, start, self.part):
            if self.device.type == "cpu":
                yield rows
            else:
                yield replace(rows, activations={site: x.to(self.device) for site, x in rows.activations.items()})

    def bench(self) -> Workbench:
        return set_up(self.recipe)

    def facts(self) -> dict[str, Any]:
        return {
            "device": str(self.device),
            "documents": {"train": None, "held_out": None},
            "cache": {"address": self.recipe.cache, "sha256": self.identity, "rows": self._shards.n_rows},
            "text_sha256": self._shards.manifest.origin["text"]["sha256"],
        }

    def _checksum(self) -> str:
        return self._shards.sha256

    def describe(self) -> str:
        return f"{self._shards.n_rows:,} rows of {self.model_name} at {', '.join(self.sites)} from {self.recipe.cache}"


def open_source(plan: Plan, told: Told | None = None, ranks: Ranks | None = None) -> RowSource:
    """The rows of a plan, or this process' part of them; ``told`` hears of every text that ends and is read again.

    Processes that share a model read the same text, others each its own.

    Raises ``UserError`` for what is wrong with the model, the text, a site or the cache.
    """
    part = EVERYTHING
    if ranks is not None:
        shares_model = plan.recipe.shares_model
        part = Part(ranks.row_part, ranks.n_row_parts) if shares_model else Part(ranks.rank, ranks.count)
    if plan.recipe.cache:
        shards = Shards(plan.recipe.cache)
        places = {name: _places(job.recipe, shards) for name, job in plan.jobs.items()}
        return CachedRows(plan.recipe, places, shards, part)
    bench = set_up(plan.recipe, ranks)
    return ModelRows(bench, {name: bench.places(job.recipe) for name, job in plan.jobs.items()}, told, part)


def _places(recipe: Recipe, shards: Shards) -> Places:
    reads = _in_cache(recipe.sites, shards)
    return Places(reads, _in_cache((recipe.target,), shards) if recipe.target else reads)


def _in_cache(sites: Sequence[str], shards: Shards) -> tuple[str, ...]:
    for site in sites:
        if site not in shards.sites:
            raise UserError(f"the cache has no site {site!r}{nearest(site, shards.sites)}; it has {shards.sites}")
    return tuple(sites)
