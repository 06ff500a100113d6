"""Which coders of a sweep differ in one thing alone, and what their weights and records say of them together."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from unweave.analysis.families import Branch
from unweave.analysis.scaling import ScalingRun
from unweave.analysis.swept import (
    Chains,
    FamilyChain,
    FittedLaw,
    LawPoint,
    TrackChain,
    family_chain,
    fitted_law,
    track_chain,
)
from unweave.coders import architecture
from unweave.storage.run_folder import Run

_WIDTH = "coder.n_latents"
_LABEL = 24
"""Characters of a latent's label, at most."""


class Member(NamedTuple):
    """A coder of a sweep, with its settings by dotted key."""

    name: str
    path: Path
    settings: Mapping[str, Any]

    @property
    def sparsity(self) -> str:
        """The setting from which its L0 follows."""
        return f"coder.{architecture(self.settings['coder.type']).sparsity}"


def chains(members: Sequence[Member]) -> Chains:
    """Laws, families and tracks of all groups of coders that differ in nothing else.

    Seeds, where there are several, are taken in turn along a chain, as coders of one seed start alike.
    """
    laws, notes = _laws(members)
    families: list[FamilyChain] = []
    for group, of_group in _groups(members, [_WIDTH, "seed"]):
        for name, chain in _in_turn(group, of_group, lambda member: member.settings[_WIDTH]):
            families.append(family_chain(name, [m.name for m in chain], _decoders(chain)))
    tracked: list[TrackChain] = []
    for group, of_group in _groups([m for m in members if _layer(m) is not None], ["site", "seed"], _point):
        for name, chain in _in_turn(group, of_group, _layer):
            decoders, sites = _decoders(chain), [str(member.settings["site"]) for member in chain]
            if len({rows.shape[1] for rows in decoders}) == 1:
                tracked.append(track_chain(name, [m.name for m in chain], sites, decoders))
    if not families:
        notes.append("No families of latents: they need coders that differ in coder.n_latents alone.")
    if not tracked:
        notes.append("No latents through layers: they need coders that differ in the layer of their site alone.")
    return Chains(laws, families, tracked, _labels(members, families, tracked), notes)


def _decoders(chain: Sequence[Member]) -> list[Tensor]:
    return [Run(member.path).coder.W_dec.detach() for member in chain]


def _in_turn(group: str, members: Sequence[Member], step: Callable[[Member], Any]) -> list[tuple[str, list[Member]]]:
    """As many chains as there are seeds, each with another seed at every step; none where there is one step."""
    seeds = sorted({member.settings["seed"] for member in members})
    steps = sorted({step(member) for member in members})
    known = {(step(member), member.settings["seed"]): member for member in members}
    if len(steps) < 2 or len(known) < len(steps) * len(seeds):
        return []
    found: list[tuple[str, list[Member]]] = []
    for start in range(len(seeds)):
        order = [seeds[(start + number) % len(seeds)] for number in range(len(steps))]
        name = group if len(seeds) == 1 else f"{group}, seeds {', '.join(map(str, order))}"
        found.append((name, [known[at, seed] for at, seed in zip(steps, order, strict=True)]))
    return found


def _laws(members: Sequence[Member]) -> tuple[list[FittedLaw], list[str]]:
    found: list[FittedLaw] = []
    reasons: dict[str, list[str]] = {}
    free = {_WIDTH, "seed", *(member.sparsity for member in members)}
    for group, chain in _groups(members, free):
        points: list[LawPoint] = []
        for member in chain:
            run = Run(member.path)
            n = member.settings[_WIDTH]
            loss = 1.0 - run.results["explained_variance"]
            setting = f"{member.sparsity.partition('.')[2]}={member.settings.get(member.sparsity):g}"
            points.append(LawPoint(setting, ScalingRun(loss, n, run.results["l0"], n * run.manifest["rows_trained"])))
        law = fitted_law(group, points)
        if isinstance(law, str):
            reasons.setdefault(law, []).append(group)
        else:
            found.append(law)
    return found, [f"No law of {'; '.join(groups)}: {reason}." for reason, groups in reasons.items()]


def _groups(
    members: Sequence[Member], free: Iterable[str], same: Callable[[Member], str] = lambda member: ""
) -> list[tuple[str, list[Member]]]:
    """Members that agree in ``same`` and in every setting but the free ones; each group is named by what is its own."""
    free = set(free)
    found: dict[tuple, list[Member]] = {}
    for member in members:
        fixed = tuple((key, repr(value)) for key, value in sorted(member.settings.items()) if key not in free)
        found.setdefault((fixed, same(member)), []).append(member)
    groups = list(found.values())
    several = len({same(group[0]) for group in groups}) > 1
    named: list[tuple[str, list[Member]]] = []
    for group in groups:
        alike = [other[0] for other in groups if other[0].settings["coder.type"] == group[0].settings["coder.type"]]
        varying = {
            key
            for key in group[0].settings.keys() - free
            if len({repr(other.settings.get(key)) for other in alike}) > 1
        }
        named.append((", ".join([_name(group[0], varying), *([same(group[0])] if several else [])]), group))
    return named


def _name(member: Member, varying: set[str]) -> str:
    parts = [member.settings["coder.type"]]
    for key in sorted(varying - {"coder.type"}):
        if key in member.settings:
            value = member.settings[key]
            parts.append(value if isinstance(value, str) else f"{key.rpartition('.')[2]}={value}")
    return ", ".join(parts)


def _layer(member: Member) -> int | None:
    """Of a coder that reads and writes one site of a layer."""
    match = re.match(r"layers\.(\d+)\.", str(member.settings["site"]))
    return int(match.group(1)) if match and not member.settings["target"] else None


def _point(member: Member) -> str:
    return re.sub(r"^layers\.\d+\.", "", str(member.settings["site"]))


def _labels(
    members: Sequence[Member], families: Sequence[FamilyChain], tracked: Sequence[TrackChain]
) -> dict[str, dict[int, str]]:
    named: dict[str, set[int]] = {}
    for chain in families:
        for branch in chain.largest:
            for level, latent in _latents(branch):
                named.setdefault(chain.coders[level], set()).add(latent)
    for chain in tracked:
        for track in chain.strongest:
            for coder, latent in zip(chain.coders, track.latents, strict=True):
                named.setdefault(coder, set()).add(latent)
    runs = {member.name: Run(member.path) for member in members if member.name in named}
    return {coder: _peaks(run, named[coder]) for coder, run in runs.items() if run.has_index}


def _latents(branch: Branch) -> Iterable[tuple[int, int]]:
    yield branch.level, branch.latent
    for child in branch.children:
        yield from _latents(child)


def _peaks(run: Run, latents: Iterable[int]) -> dict[int, str]:
    """The token at the peak of the strongest example; empty for a latent that never fired."""
    index, found = run.latents, {}
    vocabulary = index.vocabulary()
    for latent in sorted(latents):
        examples = index[latent].examples
        peak = vocabulary[examples[0].token_ids[examples[0].peak]] if examples else ""
        found[latent] = peak[:_LABEL]
    return found
