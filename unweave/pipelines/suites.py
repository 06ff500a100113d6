"""Measure a run's coder by suites beyond the core figures, beside coders that have learned nothing about latents."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from unweave.analysis import cofiring, geometry
from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.evals import absorption, mdl, probing, ravel, sae_probes, scr, shift, tpp, unlearning
from unweave.evals.builtin_tasks import TEXT_TASKS, builtin_crossed, builtin_texts, builtin_tokens
from unweave.evals.entities import EntityConfig, EntityTask, builtin_entities, read_entities
from unweave.evals.examples import Reader
from unweave.evals.measured import Measured
from unweave.evals.tasks import CrossedTexts, LabelledTexts, LabelledTokens, TaskConfig, read_task
from unweave.formats.stdlib_corpus import stdlib_documents
from unweave.metrics import Definition
from unweave.pipelines.analysis_suites import measure_cofiring, measure_geometry
from unweave.pipelines.evaluate import training_seed
from unweave.pipelines.floors import FIRST_TOKENS, FLOOR_SEED, first_rows
from unweave.pipelines.processes import APART, joined_ranks, leave
from unweave.pipelines.progress import Watch
from unweave.pipelines.report import write_report
from unweave.pipelines.workbench import Workbench, bench_of
from unweave.registry import lookup
from unweave.storage.results import SuiteFigures, read_suites, write_suites
from unweave.storage.run_folder import Run
from unweave.types import Part

_BUILTIN = "builtin:"
_RAVEL = "ravel:"
_TOKEN_TASKS = ("token_class", "identifier", "in_string")
_SUITE_SEED = 0
"""The seed that every suite has where none is given: of examples, of pairs and of random latents."""
_MDL_TOKENS = 32_768
_COFIRING_TOKENS = 32_768


@dataclass(frozen=True)
class Material:
    """What suites measure on; made when a suite first asks for it."""

    bench: Workbench
    coders: Mapping[str, SparseCoder]
    tasks: tuple[str, ...]
    """Tasks by name or address; empty for those that come with unweave."""

    @cached_property
    def reader(self) -> Reader:
        return Reader(self.bench.model, self.coders)

    @cached_property
    def documents(self) -> list[Any]:
        return list(stdlib_documents())

    @cached_property
    def texts(self) -> list[LabelledTexts]:
        return [self._texts(name) for name in self.labelled or [_BUILTIN + name for name in TEXT_TASKS]]

    @cached_property
    def labelled(self) -> list[str]:
        """The tasks that are labelled texts."""
        return [name for name in self.tasks if not name.startswith(_RAVEL)]

    @cached_property
    def entities(self) -> list[EntityTask]:
        addresses = [name.removeprefix(_RAVEL) for name in self.tasks if name.startswith(_RAVEL)]
        parts = [address.partition("#") for address in addresses]
        read = [read_entities(EntityConfig(source=source, kind=kind)) for source, _, kind in parts]
        return read or [builtin_entities(self.documents)]

    @cached_property
    def tokens(self) -> list[LabelledTokens]:
        return [builtin_tokens(name, self.documents) for name in _TOKEN_TASKS]

    @cached_property
    def crossed(self) -> list[CrossedTexts]:
        return builtin_crossed(self.documents)

    def _texts(self, name: str) -> LabelledTexts:
        if name.startswith(_BUILTIN):
            known = name.removeprefix(_BUILTIN)
            lookup(known, dict.fromkeys(TEXT_TASKS), "task")
            return builtin_texts(known, self.documents)
        return read_task(TaskConfig(source=name))


@dataclass(frozen=True)
class Suite:
    """One suite: what it measures, and what its figures mean."""

    measure: Callable[[Material], dict[str, Measured]]
    definitions: Callable[[], Sequence[Definition]]


SUITES = {
    "probing": Suite(
        lambda m: probing.measure_probing(m.reader, [*m.texts, *([] if m.labelled else m.tokens)]),
        probing.definitions,
    ),
    "sae_probes": Suite(lambda m: sae_probes.measure_sae_probes(m.reader, m.texts), sae_probes.definitions),
    "tpp": Suite(lambda m: tpp.measure_tpp(m.reader, m.texts), tpp.definitions),
    "scr": Suite(lambda m: scr.measure_scr(m.reader, m.crossed), scr.definitions),
    "shift": Suite(lambda m: shift.measure_shift(m.reader, m.crossed), shift.definitions),
    "absorption": Suite(
        lambda m: absorption.measure_absorption(m.reader, m.tokens[0]),
        lambda: absorption.DEFINITIONS,
    ),
    "mdl": Suite(
        lambda m: mdl.measure_mdl(m.bench.model, m.coders, m.bench.held_out(_MDL_TOKENS)), lambda: mdl.DEFINITIONS
    ),
    "geometry": Suite(lambda m: measure_geometry(m.bench.model, m.coders), lambda: geometry.DEFINITIONS),
    "cofiring": Suite(
        lambda m: measure_cofiring(m.bench.model, m.coders, m.bench.held_out(_COFIRING_TOKENS)),
        lambda: cofiring.DEFINITIONS,
    ),
    "unlearning": Suite(
        lambda m: unlearning.measure_forgotten_classes(m.bench.model, m.coders, m.texts), lambda: unlearning.DEFINITIONS
    ),
    "ravel": Suite(lambda m: ravel.measure_ravel(m.bench.model, m.coders, m.entities), ravel.definitions),
}


def measure_suites(
    path: Path, names: Sequence[str], watch: Watch, *, tasks: Sequence[str] = (), overrides: Sequence[str] = ()
) -> dict[str, dict[str, Measured]]:
    """The figures of some suites for a run's coder, ``random``, ``pca`` and ``identity``, written to its folder.

    ``tasks``: files, folders or ``hf:`` ids of labelled texts, or ``builtin:piece`` and ``builtin:package``;
    for ``ravel`` alone, ``ravel:`` and the folder or ``hf:`` id of its entities, with ``#`` and their kind.

    Of several processes that torchrun has started, each measures some coders by some suites; the first writes and
    returns, and the others end here.
    """
    suites = {name: lookup(name, SUITES, "suite") for name in names}
    run = Run(path)
    with joined_ranks(1, "evaluate the run again", APART) as ranks:
        with watch.waiting("loading the model and the text"):
            bench = bench_of(run, overrides)
            coders = _with_floors(run, bench)
        own = share_of(list(suites), list(coders), Part() if ranks is None else Part(ranks.rank, ranks.count))
        material = Material(bench, {name: coders[name] for name in own.coders}, tuple(tasks))
        parts: list[dict[str, dict[str, Measured]]] = [{}]
        for name in own.suites:
            with watch.waiting(f"measuring {name}"):
                parts[0][name] = suites[name].measure(material)
        if ranks is not None:
            with watch.waiting("waiting for the other processes"):
                parts += ranks.of_others(parts[0])
                leave(ranks)
    found = {
        name: {coder: part[name][coder] for coder in coders for part in parts if coder in part.get(name, ())}
        for name in suites
    }
    told = {name: _told(run, suites[name], coders) for name, coders in found.items()}
    write_suites(run.path, read_suites(run.path) | told)
    if run.has_index:
        with watch.waiting("writing the report"):
            write_report(run, name=run.path.resolve().name)
    return found


class Share(NamedTuple):
    """The suites that one of several processes measures, and the coders that it measures by them."""

    suites: list[str]
    coders: list[str]


def share_of(suites: list[str], coders: list[str], part: Part) -> Share:
    """Every n-th coder; of processes that have the same coders, each has every n-th suite.

    The figures of a coder do not depend on the others beside it, so together they are those of a single process.
    """
    n_sides = min(part.of, len(coders))
    turn, side = divmod(part.number, n_sides)
    n_turns = len(range(side, part.of, n_sides))
    return Share(suites[turn::n_turns], coders[side::n_sides])


def _told(run: Run, suite: Suite, coders: Mapping[str, Measured]) -> dict[str, SuiteFigures]:
    versions = {d.name: d.version for d in suite.definitions()}
    seeds = training_seed(run.path) | {"suite": _SUITE_SEED, "random_floor": FLOOR_SEED}
    return {
        coder: SuiteFigures(
            **its._asdict(),
            definition_versions={name: versions[name] for name in its.figures if name in versions},
            seeds=seeds,
        )
        for coder, its in coders.items()
    }


def _with_floors(run: Run, bench: Workbench) -> dict[str, SparseCoder]:
    """The run's coder and those to hold it against, which can stand in for an SAE alone."""
    coder = run.coder.to(bench.model.device)
    name = run.path.resolve().name
    first = first_rows(bench, {name: coder}, bench.held_out(FIRST_TOKENS))
    floors = {floor: first.controls[kind] for floor, kind in first.kinds.get(name, {}).items()}
    if name in floors:
        raise UserError(f"a run called {name!r} cannot be told from the floor of that name; rename its folder")
    for floor in floors.values():
        floor.origin = coder.origin
    return {name: coder} | floors
