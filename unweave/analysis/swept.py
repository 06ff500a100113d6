"""What a sweep says beyond its points: frontiers line by line, a law over its widths, and chains of its coders.

A chain of widths has coders that differ in their number of latents alone, narrowest first; a chain of layers has coders
that differ in their layer alone, first layer first. ``families.py`` says how latents are followed along either.

Coders of one seed start with the same directions: latent i of one is latent i of the other. Where training has moved
them little, they look alike for that alone, which the share of links between latents of one number tells.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from unweave.analysis.cosines import Pairs
from unweave.analysis.families import Branch, FamilyTree, links_by_cosine, parents_by_cosine, tracks
from unweave.analysis.frontier import ISO_L0, Reference, frontier_figures
from unweave.analysis.pareto import SHOWN, ParetoLine, Spread
from unweave.analysis.scaling import COMPUTE, JOINT, Law, ScalingRun, figures_of, fit, is_determined
from unweave.metrics.base import Definition

_MOST_BRANCHES = 12
_MOST_TRACKS = 10
_STARTS = 10
_KEPT = 0.05
"""Share of links between latents of one number over which a person is told."""
_CURVE = 40
"""Points of a curve of a law."""

DEFINITIONS = (
    Definition(
        "same_number_share",
        "Links of one number",
        "Share of the links that join latents of the same number, which coders of one seed start with alike.",
        "near 0; where it is large, latents may be alike because they have kept their start",
    ),
)


class Frontiers(NamedTuple):
    """Every line of a sweep by one number, and at the same sparsity."""

    reference_l0: float
    """The area reaches to here, and down to a figure of 0: as good as the mean row."""
    figures: dict[str, dict[str, dict[str, Spread | None]]]
    """By figure, line and what is said of it."""


class LawPoint(NamedTuple):
    """A coder as a law sees it."""

    setting: str
    run: ScalingRun


class FittedLaw(NamedTuple):
    """A law over coders that differ in width, sparsity and seed alone."""

    group: str
    law: Law
    parameters: dict[str, float]
    figures: dict[str, float]
    points: list[LawPoint]
    curves: dict[str, tuple[list[float], list[float]]]
    """Widths and losses of the law by setting."""


class FamilyChain(NamedTuple):
    """Families along a chain of widths."""

    group: str
    coders: list[str]
    sizes: list[int]
    figures: list[dict[str, float]]
    """Of each step to a wider coder."""
    largest: list[Branch]
    """The latents of the narrowest coder of which most has come."""


class Track(NamedTuple):
    """One latent through the layers."""

    latents: list[int]
    strengths: list[float]


class TrackChain(NamedTuple):
    """Latents along a chain of layers."""

    group: str
    coders: list[str]
    sites: list[str]
    figures: dict[str, float]
    followed: list[float]
    """Share of the first layer's latents that are followed up to each layer."""
    strongest: list[Track]


class Chains(NamedTuple):
    """What coders of a sweep say together."""

    laws: list[FittedLaw]
    families: list[FamilyChain]
    tracks: list[TrackChain]
    labels: dict[str, dict[int, str]]
    """By coder that has an index, the token on which each latent of a family or track fires most strongly."""
    notes: list[str]
    """Why something is missing."""


def frontiers(lines: Sequence[ParetoLine], names: Sequence[str] = SHOWN) -> Frontiers:
    """Areas and figures at the usual L0s that lie within the sweep; at the middle of its range if none does."""
    l0s = [point.figures["l0"].mean for line in lines for point in line.points if point.figures["l0"].mean > 0]
    low, high = (min(l0s), max(l0s)) if l0s else (1.0, 1.0)
    within = [l0 for l0 in ISO_L0 if low <= l0 <= high] or [max(1, round(math.sqrt(low * high)))]
    reference = Reference(2 * high, 0.0)
    found = {name: {line.name: frontier_figures(line, name, reference, l0s=within) for line in lines} for name in names}
    for lines_of in found.values():
        for column in [f"frontier_at_l0_{l0}" for l0 in within]:
            if all(figures[column] is None for figures in lines_of.values()):
                for figures in lines_of.values():
                    del figures[column]
    return Frontiers(reference.l0, found)


def kept_start(figures: Iterable[Mapping[str, float | None]]) -> str:
    """What to say of chains whose latents are alike for their start alone; empty where none seems to be.

    The share of a chain without links is NaN, or None where it comes from JSON.
    """
    shares = (of_chain["same_number_share"] for of_chain in figures)
    most = max((share for share in shares if share is not None and not math.isnan(share)), default=0.0)
    if not most > _KEPT:
        return ""
    return (
        f"Up to {most:.0%} of these links join latents of the same number. Coders of one seed start with the same "
        "directions, so latents that training has moved little are alike for that alone. Give several seeds, such as "
        "seed=[0, 1]: a chain then takes them in turn."
    )


def fitted_law(group: str, points: Sequence[LawPoint]) -> FittedLaw | str:
    """The law that the coders determine, or in a few words why they determine none.

    The joint law in latents and active latents where it has six coders that differ in both, else that in compute, which
    grows with the width where all coders saw as many rows.
    """
    runs = [point.run for point in points if point.run.loss > 0]
    widths, settings = {run.n_latents for run in runs}, {point.setting for point in points}
    law = JOINT if len(settings) > 1 and is_determined(JOINT, runs) else COMPUTE
    if not is_determined(law, runs) or (law is COMPUTE and len(settings) > 1):
        return (
            "a scaling law needs 3 widths at one sparsity, or 6 coders of at least 2 widths at 2 sparsities, and has "
            f"{len(runs)} of {len(widths)} and {len(settings)}"
        )
    fitted = fit(law, runs, starts=_STARTS)
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for setting in sorted(settings):
        own = [point.run for point in points if point.setting == setting]
        along = np.geomspace(min(widths), max(widths), _CURVE)
        k, per_latent = float(np.mean([run.k for run in own])), own[0].compute / own[0].n_latents
        losses = fitted.predict([ScalingRun(1.0, n, k, n * per_latent) for n in along.tolist()])
        curves[setting] = along.tolist(), losses.tolist()
    return FittedLaw(group, law, fitted.parameters, figures_of(fitted, runs, starts=_STARTS), list(points), curves)


def family_chain(group: str, coders: Sequence[str], decoders: Sequence[Float[Tensor, "_ D"]]) -> FamilyChain:
    """Families by the cosines of decoder rows, of coders that get wider."""
    links = [parents_by_cosine(narrow, wide) for narrow, wide in pairwise(decoders)]
    sizes = [len(rows) for rows in decoders]
    tree = FamilyTree(links, sizes)
    branches = sorted((tree.branch(0, latent) for latent in range(sizes[0])), key=lambda branch: -branch.n_latents)
    figures = [tree.figures(level) | _same_number(links[level : level + 1]) for level in range(len(links))]
    largest = [branch for branch in branches[:_MOST_BRANCHES] if branch.children]
    return FamilyChain(group, list(coders), sizes, figures, largest)


def track_chain(
    group: str, coders: Sequence[str], sites: Sequence[str], decoders: Sequence[Float[Tensor, "_ D"]]
) -> TrackChain:
    """Tracks by the cosines of decoder rows, of coders of layer after layer; the strongest reach the last one."""
    links = links_by_cosine(decoders)
    found = tracks(links, len(decoders[0]))
    weakest = found.strengths.amin(1).nan_to_num(-1.0)
    whole = [i for i in weakest.argsort(descending=True, stable=True).tolist() if weakest[i] > 0][:_MOST_TRACKS]
    strongest = [Track(found.ids[i].tolist(), found.strengths[i].tolist()) for i in whole]
    followed = (found.ids >= 0).double().mean(0).tolist()
    figures = found.figures() | _same_number(links)
    return TrackChain(group, list(coders), list(sites), figures, followed, strongest)


def _same_number(links: Sequence[Pairs]) -> dict[str, float]:
    n_links = sum(len(link.first) for link in links)
    n_same = sum(int((link.first == link.second).sum()) for link in links)
    return {"same_number_share": n_same / n_links if n_links else math.nan}
