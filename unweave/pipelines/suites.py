"""Measure a run's coder by suites beyond the core figures, beside coders that have learned nothing about latents."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from unweave.activations.harvest import rows_of
from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.evals import absorption, mdl, probing, sae_probes, scr, shift, tpp
from unweave.evals.builtin_tasks import TEXT_TASKS, builtin_crossed, builtin_texts, builtin_tokens
from unweave.evals.controls import identity_coder, pca_coder, random_coder
from unweave.evals.measured import Measured
from unweave.evals.tasks import CrossedTexts, LabelledTexts, LabelledTokens, TaskConfig, read_task
from unweave.formats.stdlib_corpus import stdlib_documents
from unweave.metrics import Definition
from unweave.pipelines.evaluate import bench_of, held_out
from unweave.pipelines.progress import Watch
from unweave.pipelines.workbench import Workbench
from unweave.registry import lookup
from unweave.storage.run_folder import SUITES as SUITES_FILE
from unweave.storage.run_folder import Run, write_json

_BUILTIN = "builtin:"
_TOKEN_TASKS = ("token_class", "identifier", "in_string")
_FLOOR_ROWS = 16_384
_MDL_TOKENS = 32_768


@dataclass(frozen=True)
class Material:
    """What suites measure on; made when a suite first asks for it."""

    bench: Workbench
    coders: Mapping[str, SparseCoder]
    tasks: tuple[str, ...]
    """Tasks by name or address; empty for those that come with unweave."""

    @cached_property
    def documents(self) -> list[Any]:
        return list(stdlib_documents())

    @cached_property
    def texts(self) -> list[LabelledTexts]:
        return [self._texts(name) for name in self.tasks or [_BUILTIN + name for name in TEXT_TASKS]]

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
        lambda m: probing.measure_probing(m.bench.model, m.coders, [*m.texts, *([] if m.tasks else m.tokens)]),
        probing.definitions,
    ),
    "sae_probes": Suite(
        lambda m: sae_probes.measure_sae_probes(m.bench.model, m.coders, m.texts), sae_probes.definitions
    ),
    "tpp": Suite(lambda m: tpp.measure_tpp(m.bench.model, m.coders, m.texts), tpp.definitions),
    "scr": Suite(lambda m: scr.measure_scr(m.bench.model, m.coders, m.crossed), scr.definitions),
    "shift": Suite(lambda m: shift.measure_shift(m.bench.model, m.coders, m.crossed), shift.definitions),
    "absorption": Suite(
        lambda m: absorption.measure_absorption(m.bench.model, m.coders, m.tokens[0]),
        lambda: absorption.DEFINITIONS,
    ),
    "mdl": Suite(
        lambda m: mdl.measure_mdl(m.bench.model, m.coders, held_out(m.bench, _MDL_TOKENS)), lambda: mdl.DEFINITIONS
    ),
}


def measure_suites(
    path: Path, names: Sequence[str], watch: Watch, *, tasks: Sequence[str] = (), overrides: Sequence[str] = ()
) -> dict[str, dict[str, Measured]]:
    """The figures of some suites for a run's coder, ``random``, ``pca`` and ``identity``, written to its folder.

    ``tasks``: files, folders or ``hf:`` ids of labelled texts, or ``builtin:piece`` and ``builtin:package``.
    """
    suites = {name: lookup(name, SUITES, "suite") for name in names}
    run = Run(path)
    with watch.waiting("loading the model and the text"):
        bench = bench_of(run, overrides)
        material = Material(bench, _with_floors(run, bench), tuple(tasks))
    found = {}
    for name, suite in suites.items():
        with watch.waiting(f"measuring {name}"):
            found[name] = suite.measure(material)
    told = {suite: {coder: its._asdict() for coder, its in coders.items()} for suite, coders in found.items()}
    write_json(run.path / SUITES_FILE, run.suites | told)
    return found


def _with_floors(run: Run, bench: Workbench) -> dict[str, SparseCoder]:
    """The run's coder and those to hold it against, which can stand in for an SAE alone."""
    coder = run.coder.to(bench.model.device)
    name = run.path.resolve().name
    if coder.wiring.kind != "sae":
        return {name: coder}
    sample = []
    for batch in held_out(bench, _FLOOR_ROWS):
        captured = bench.model.capture(batch.token_ids, coder.site)
        sample.append(rows_of(batch, captured, max_norm=bench.recipe.packing.max_norm).activations[coder.site])
    x_BD = torch.cat(sample).float()
    l0 = float(run.results["l0"])
    controls = {
        "random": random_coder(coder.wiring, coder.n_latents, l0, x_BD.mean(0)),
        "pca": pca_coder(coder.wiring, l0, x_BD),
        "identity": identity_coder(coder.wiring),
    }
    for control in controls.values():
        control.origin = coder.origin
    if name in controls:
        raise UserError(f"a run called {name!r} cannot be told from the floor of that name; rename its folder")
    return {name: coder} | {other: control.to(bench.model.device) for other, control in controls.items()}
