"""Measure two coders against each other: the same latents, the same features, and what one has that the other lacks.

Each comparison says what its figures would be by chance where it can: with one decoder turned by random rotations, with
rows or pairs of latents in another order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch

from unweave.analysis.cofiring import CoFiring, shuffled_rows
from unweave.analysis.correlation import correlated, correlation_figures, unique_best
from unweave.analysis.cosines import Pairs
from unweave.analysis.matching import compare_coders
from unweave.analysis.similarity import similarity_figures
from unweave.analysis.stitched_loss import StitchedLoss, stitched_losses
from unweave.analysis.stitching import Stitching, proxy_figures, stitched_rows
from unweave.analysis.swapping import SwapPath, SwappedRows, swap_groups, swap_steps
from unweave.analysis.transfer import MapFit, Transfer, TransferRows
from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.formats.files import write_json
from unweave.metrics.base import Metric
from unweave.pipelines.two_coders import TwoCoders
from unweave.registry import lookup

_CHANCE = {
    "mmcs": ("mmcs_rotated", "mmcs_p"),
    "mmcs_back": ("mmcs_back_of_random", ""),
    "mcc_of_coders": ("mcc_rotated", "mcc_p"),
    **{name: (f"{name}_shuffled", f"{name}_p") for name in ("cka", "svcca", "rsa")},
}
"""Figures that say what another is by chance, and how likely it is to be as large."""
_INSTEAD = "; compare them by correlation, similarity or transfer"
_KEPT = 0.05
"""Share of pairs of one number over which a person is told."""
_LEAST_TOGETHER = 5
"""Rows on which two latents are active together, below which a correlation says little."""


class ComparedFigure(NamedTuple):
    """One figure of two coders."""

    name: str
    value: float
    error: float | None = None
    """Standard error by blocks of documents."""
    chance: float | None = None
    """What it is where nothing is alike."""
    p: float | None = None
    """Share of the random draws that reach the value, that one counted too."""


@dataclass(frozen=True)
class Comparison:
    """What one comparison has found."""

    note: str
    """Which coder is which, and how much was compared."""
    figures: list[ComparedFigure]
    details: dict[str, Any] = field(default_factory=dict)
    """What the figures are made of, such as the pairs of latents, as JSON holds it."""


def compare_by(two: TwoCoders, names: Sequence[str], *, draws: int = 20) -> dict[str, Comparison]:
    """Comparisons by name; ``draws`` of random rotations and pairings tell what is chance.

    Raises ``UserError`` for coders that a comparison cannot compare.
    """
    if not names:
        raise UserError(f"which comparisons? give --suite some of {', '.join(COMPARISONS)}")
    if draws < 1:
        raise UserError(f"chance needs at least 1 draw, got --draws {draws}")
    asked = {name: lookup(name, COMPARISONS, "comparison") for name in names}
    for kind in asked.values():
        kind.check(two)
    work = _Work(two, draws)
    return {name: kind.compare(work) for name, kind in asked.items()}


def write_comparisons(path: Path, two: TwoCoders, found: Mapping[str, Comparison]) -> None:
    """Everything that was found, as JSON."""
    told = {
        name: {
            "note": comparison.note,
            "figures": {figure.name: _told(figure) for figure in comparison.figures},
            "details": comparison.details,
        }
        for name, comparison in found.items()
    }
    write_json(path, {"first": two.names[0], "second": two.names[1], "comparisons": told})


class _Stitched(NamedTuple):
    """The smaller coder, the larger one, and what the latents of the one do for the other."""

    small: SparseCoder
    large: SparseCoder
    names: tuple[str, str]
    metric: Stitching


@dataclass(frozen=True)
class _Work:
    """What several comparisons need, made when the first of them asks."""

    two: TwoCoders
    draws: int

    @cached_property
    def fired(self) -> tuple[CoFiring, CoFiring]:
        """Sums over rows of both coders, and the same with the second coder's rows in another order."""
        first, second = self.two.coders
        fired, by_chance = (CoFiring(first.n_latents, second.n_latents) for _ in range(2))
        generator = torch.Generator().manual_seed(0)
        for batch in self.two.batches("correlating", self.two.n_tokens):
            codes, other = self.two.codes(batch)
            fired.update(codes, other)
            by_chance.update(codes, shuffled_rows(other, generator))
        return fired, by_chance

    @cached_property
    def pairs(self) -> Pairs:
        with self.two.watch.waiting("pairing latents"):
            return correlated(self.fired[0], min_count=_LEAST_TOGETHER)

    @cached_property
    def stitched(self) -> _Stitched:
        order = sorted((0, 1), key=lambda number: self.two.coders[number].n_latents)
        bench = self.two.bench  # from here on both are on its device
        small, large = (self.two.coders[number] for number in order)
        metric = Stitching(large.W_dec)
        for batch in self.two.batches("stitching", bench.recipe.evaluation.tokens):
            rows = self.two.rows(batch)
            metric.update(stitched_rows(small, large, rows.reads[0], rows.writes[0], rows.blocks))
        return _Stitched(small, large, (self.two.names[order[0]], self.two.names[order[1]]), metric)


def _matching(work: _Work) -> Comparison:
    two = work.two
    with two.watch.waiting(f"matching, with {work.draws} random rotations"):
        compared = compare_coders(*two.coders, draws=work.draws)
    pairs = compared.matching
    details: dict[str, Any] = {"pairs": _listed(pairs)}
    n_shared = "" if compared.is_shared is None else f", {int(compared.is_shared.sum()):,} of them shared"
    if compared.is_shared is not None:
        details["pairs"]["is_shared"] = compared.is_shared.tolist()
    same = (pairs.first == pairs.second).double().mean().item()
    alike = f", {same:.0%} of one number, as in coders of one seed that have kept their start" if same > _KEPT else ""
    return Comparison(f"{len(pairs.first):,} pairs of latents{n_shared}{alike}", _folded(compared.figures), details)


def _correlation(work: _Work) -> Comparison:
    (fired, by_chance), pairs = work.fired, work.pairs
    with work.two.watch.waiting("pairing latents by chance"):
        chance = correlation_figures(correlated(by_chance, min_count=_LEAST_TOGETHER), by_chance)
    figures = [ComparedFigure(n, v, chance=chance[n]) for n, v in correlation_figures(pairs, fired).items()]
    return Comparison(f"{fired.n_rows:,} tokens that both have read", figures, {"best": _listed(unique_best(pairs))})


def _similarity(work: _Work) -> Comparison:
    """Latents are paired by correlation, as decoders of other widths have no cosines."""
    chosen = unique_best(work.pairs)
    sides = zip(work.two.coders, (chosen.first, chosen.second), strict=True)
    rows = [coder.W_dec.detach()[ids.to(coder.W_dec.device)] for coder, ids in sides]
    with work.two.watch.waiting(f"similarity, with {work.draws} random pairings"):
        figures = similarity_figures(rows[0], rows[1], draws=work.draws)
    return Comparison(f"{len(chosen.first):,} pairs of latents, each best correlated with the other", _folded(figures))


def _stitching(work: _Work) -> Comparison:
    small, large, names, metric = work.stitched
    is_novel = metric.delta_L < 0
    n_novel, n_fired = int(is_novel.sum()), int((~metric.delta_L.isnan()).sum())
    figures = _measured(metric)
    figures += [ComparedFigure(n, v) for n, v in proxy_figures(large.W_dec, small.W_dec, metric.delta_L).items()]
    losses = StitchedLoss()
    for batch in work.two.batches("losses", work.two.bench.recipe.evaluation.splice_tokens, odd=True):
        losses.update(stitched_losses(work.two.models[0], batch, small, large, is_novel))
    note = f"{names[1]} has {n_novel:,} latents that {names[0]} lacks, {n_fired - n_novel:,} others that fire"
    details = {"novel": is_novel.nonzero().flatten().tolist(), "delta": _without_nan(metric.delta_L)}
    return Comparison(note, figures + _measured(losses), details)


def _swap(work: _Work) -> Comparison:
    small, large, names, stitched = work.stitched
    groups = swap_groups(small.W_dec, large.W_dec)
    path = SwapPath(small, large, swap_steps(groups, delta_M=stitched.delta_L))
    for batch in work.two.batches("swapping", work.two.n_tokens, odd=True):
        rows = work.two.rows(batch)
        path.update(SwappedRows(rows.reads[0], rows.writes[0], rows.blocks))
    sizes = ", ".join(f"{len(ids):,} {kind}" for kind, ids in groups.kinds().items())
    curve = {name: values.tolist() for name, values in path.curve()._asdict().items()}
    return Comparison(f"from {names[0]} to {names[1]}, groups of latents: {sizes}", _measured(path), curve)


def _transfer(work: _Work) -> Comparison:
    two = work.two
    home, other = (coder.wiring.reads for coder in two.coders)
    there, back = (MapFit(sum(p.width for p in a), sum(p.width for p in b)) for a, b in ((other, home), (home, other)))
    for batch in two.batches("fitting maps", two.n_tokens):
        x, y = two.rows(batch).reads
        there.update(y, x)
        back.update(x, y)
    metric = Transfer(two.coders[0], there.solve(), back.solve())
    for batch in two.batches("transfer", two.n_tokens, odd=True):
        rows = two.rows(batch)
        metric.update(TransferRows(*rows.reads, rows.blocks))
    elsewhere = ", ".join(port.site for port in other)
    return Comparison(f"{two.names[0]} at {elsewhere}, where {two.names[1]} reads", _measured(metric))


def _check_one_space(two: TwoCoders) -> None:
    widths = [coder.wiring.d_write for coder in two.coders]
    if not two.share_a_model or widths[0] != widths[1]:
        what = f"widths {widths[0]} and {widths[1]}" if two.share_a_model else "two models"
        raise UserError(f"matching compares directions of one space, got coders of {what}{_INSTEAD}")


def _check_one_place(two: TwoCoders) -> None:
    _check_single_rows(two)
    first, second = (coder.wiring for coder in two.coders)
    if not two.share_a_model or (first.reads, first.writes) != (second.reads, second.writes):
        sites = [", ".join(f"{port.site} [{port.width}]" for port in wiring.writes) for wiring in (first, second)]
        models = "" if two.share_a_model else " of two models"
        raise UserError(
            f"stitching and swap need coders of one site of one model, got {sites[0]} and {sites[1]}{models}{_INSTEAD}"
        )


def _check_two_places(two: TwoCoders) -> None:
    _check_single_rows(two)
    home, other = (coder.wiring.reads for coder in two.coders)
    if two.share_a_model and home == other:
        raise UserError(f"transfer is to another site or model, and both coders read {home[0].site}; leave it out")


def _check_single_rows(two: TwoCoders) -> None:
    for name, coder in zip(two.names, two.coders, strict=True):
        if coder.reads_sequences:
            raise UserError(
                f"stitching, swap and transfer need coders that read each row alone, and {name!r} reads sequences; "
                "compare them by matching, correlation or similarity"
            )


def _anything(two: TwoCoders) -> None:
    """Coders of any two sites have codes for the same tokens."""


class _Kind(NamedTuple):
    """A comparison: what raises ``UserError`` for coders that it cannot compare, and what compares them."""

    check: Callable[[TwoCoders], None]
    compare: Callable[[_Work], Comparison]


COMPARISONS = {
    "matching": _Kind(_check_one_space, _matching),
    "stitching": _Kind(_check_one_place, _stitching),
    "swap": _Kind(_check_one_place, _swap),
    "correlation": _Kind(_anything, _correlation),
    "similarity": _Kind(_anything, _similarity),
    "transfer": _Kind(_check_two_places, _transfer),
}


def _measured(metric: Metric[Any]) -> list[ComparedFigure]:
    errors = metric.standard_errors()
    return [ComparedFigure(name, value, errors.get(name)) for name, value in metric.compute().items()]


def _folded(figures: Mapping[str, float]) -> list[ComparedFigure]:
    """Figures that say what is chance beside those that they are about."""
    about = {name for names in _CHANCE.values() for name in names} | {"mmcs_of_random"}
    found: list[ComparedFigure] = []
    for name, value in figures.items():
        if name not in about:
            chance, p = (figures.get(other) for other in _CHANCE.get(name, ("", "")))
            found.append(ComparedFigure(name, value, chance=chance, p=p))
    return found


def _told(figure: ComparedFigure) -> dict[str, float]:
    return {name: value for name, value in figure._asdict().items() if name != "name" and value is not None}


def _listed(pairs: Pairs) -> dict[str, list]:
    return {name: part.tolist() for name, part in pairs._asdict().items()}


def _without_nan(values: torch.Tensor) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]
