"""From the fires of latents to what an index keeps of each: examples by place, distributions, partners, what tells.

A fact sheet is what JSON can hold: places instead of stretches of text, which a reader looks up in the indexed text.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int

from unweave.analysis.cosines import nearest
from unweave.analysis.fire_scans import drawn_by_rank, partners, strongest
from unweave.analysis.fires import Activity, Fires, IndexedText, activity
from unweave.analysis.token_statistics import (
    PATTERNS,
    Explained,
    Rule,
    Variable,
    explained,
    rules,
    second_half,
    variables,
)
from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.models.logit_lens import LogitEffects

Sheet = dict[str, Any]
_TOP_KEYS = 5
"""Tokens that are listed for each variable."""
_TOGETHER = 5
"""Tokens that two latents must share before they are partners."""
_DIGITS = 5
"""Significant digits of what is kept."""


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """What an index keeps of each latent."""

    tokens: int = 200_000
    """Tokens of the text to read; fewer where it ends."""
    examples: int = 20
    """Strongest examples, each of another document."""
    groups: int = 5
    """Equal shares of the fires from which examples are drawn."""
    drawn: int = 5
    """Examples drawn from each share."""
    promoted: int = 10
    """Tokens listed as promoted and as suppressed."""
    partners: int = 20
    """Latents listed as firing together with it, and as similar to it."""
    neurons: int = 10
    """Coordinates of the site listed."""
    least_f1: float = 0.5
    """F1 from which a rule of tokens is kept."""
    seed: int = 0
    """Of the draw of examples."""

    def __post_init__(self) -> None:
        for name in ("tokens", "examples", "groups", "drawn", "promoted", "partners", "neurons"):
            if getattr(self, name) < 1:
                raise UserError(f"index.{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.least_f1 <= 1:
            raise UserError(f"index.least_f1 is more than 0 and at most 1, got {self.least_f1}")


class LatentsByPlace(NamedTuple):
    """Which latents fire at each place; a place that was left out has none."""

    offsets: Int[np.ndarray, " P_plus_1"]
    latents: Int[np.ndarray, " E"]
    counts: Int[np.ndarray, " L"]
    """How often each latent fires at these places."""
    n_rows: int
    """Rows among the places that were not left out."""


class FireFacts:
    """What follows from when latents fire, for some latents at a time."""

    def __init__(self, text: IndexedText, by_place: LatentsByPlace, config: IndexConfig) -> None:
        self._text, self._by_place, self._config = text, by_place, config
        self._documents = np.ascontiguousarray(text.document_ids).reshape(-1)
        self._tokens = np.ascontiguousarray(text.token_ids).reshape(-1)
        self._half = second_half(text)
        self._variables: list[Variable] = list(variables(text))
        self._meanings = {variable.name: variable.meaning for variable in self._variables}

    def sheets(self, fires: Fires) -> Iterator[Sheet]:
        """One sheet for each latent, in order."""
        config, found = self._config, (fires.falling, fires.places, fires.offsets)
        active = activity(fires)
        top = strongest(*found, self._documents, self._text.context, config.examples)
        drawn = drawn_by_rank(*found, fires.first, config.groups, config.drawn, config.seed)
        told = {variable.name: explained(fires, variable, self._half) for variable in self._variables}
        fitting = rules({name: told[name] for name in PATTERNS}, self._meanings, config.least_f1)
        together = self._partners(fires)
        for i, (start, end) in enumerate(itertools.pairwise(fires.offsets.tolist())):
            values = fires.values[fires.falling[start:end]]
            yield {
                "n_fires": len(values),
                "density": len(values) / max(1, self._text.n_rows),
                "max": _short(values[0]) if len(values) else 0.0,
                "mean": _short(active.mean[i]),
                "top": top[i][top[i] >= 0].tolist(),
                "peaks": self._peaks(top[i][top[i] >= 0]),
                "groups": _groups(values, drawn[i]),
                "quantiles": [_short(value) for value in active.quantiles[i]] if len(values) else [],
                "histogram": _histogram(active, i) if len(values) else None,
                "partners": together[i],
                "telling": {name: self._telling(name, told[name], i) for name in told} if len(values) else {},
                "rule": _rule(fitting[i]),
            }

    def _peaks(self, top: Int[np.ndarray, " N"]) -> list[int]:
        """The tokens on which the strongest examples peak, the most frequent first, then in order."""
        return [token for token, _ in Counter(self._tokens[top].tolist()).most_common(_TOP_KEYS)]

    def _partners(self, fires: Fires) -> list[list[tuple[int, float, float]]]:
        seen = self._by_place
        ids, both = partners(
            fires.places,
            fires.offsets,
            fires.first,
            seen.offsets,
            seen.latents,
            seen.counts,
            self._config.partners,
            _TOGETHER,
        )
        found = []
        for i in range(len(fires)):
            own, listed = int(seen.counts[fires.first + i]), []
            for other, n in zip(ids[i][ids[i] >= 0].tolist(), both[i].tolist(), strict=False):
                count = int(seen.counts[other])
                pmi = math.log(n * seen.n_rows / (own * count))
                listed.append((other, _short(n / (own + count - n)), _short(pmi)))
            found.append(listed)
        return found

    def _telling(self, name: str, told: Explained, i: int) -> list[Any]:
        keys = told.top[i][:_TOP_KEYS]
        top = [
            [self._meanings[name][key].tolist(), count]
            for key, count in zip(keys[keys >= 0].tolist(), told.top_counts[i].tolist(), strict=False)
        ]
        return [_short(told.share[i]), _short(told.entropy[i]), top]


def direction_facts(coder: SparseCoder, effects: LogitEffects | None, config: IndexConfig) -> Iterator[Sheet]:
    """What follows from the direction that each latent writes: tokens, similar latents, coordinates."""
    W_LD = coder.W_dec.detach().float()
    n = min(config.partners, len(W_LD) - 1)
    similar = [part.cpu() for part in nearest(W_LD, n=n)] if n else None
    order = W_LD.abs().topk(min(config.neurons, W_LD.shape[1]), dim=1).indices
    largest = W_LD.gather(1, order)
    shares = largest.abs() / W_LD.abs().sum(1, keepdim=True).clamp(min=1e-30)
    order, largest, shares = order.tolist(), largest.tolist(), shares.tolist()
    for latent in range(len(W_LD)):
        neurons = zip(order[latent], largest[latent], shares[latent], strict=True)
        sheet: Sheet = {
            "similar": [] if similar is None else _pairs(similar[1][latent], similar[0][latent]),
            "neurons": [(neuron, _short(value), _short(share)) for neuron, value, share in neurons],
            "promoted": [],
            "suppressed": [],
            "logits": None,
        }
        if effects is not None:
            low, high = _short(effects.low[latent]), _short(effects.high[latent])
            sheet["promoted"] = _pairs(*(part[latent] for part in effects.promoted))
            sheet["suppressed"] = _pairs(*(part[latent] for part in effects.suppressed))
            sheet["logits"] = [low, high, effects.histogram[latent].tolist()]
        yield sheet


def _groups(falling: np.ndarray, drawn: Int[np.ndarray, "G M"]) -> list[list[Any]]:
    """Each share of the fires that is not empty: its smallest and largest activation, its size, and drawn places."""
    n, groups = len(falling), []
    for group in range(len(drawn)):
        start, end = group * n // len(drawn), (group + 1) * n // len(drawn)
        if end > start:
            places = drawn[group][drawn[group] >= 0].tolist()
            groups.append([_short(falling[end - 1]), _short(falling[start]), _short((end - start) / n), places])
    return groups


def _histogram(active: Activity, i: int) -> list[Any]:
    return [_short(active.low[i]), _short(active.high[i]), active.histogram[i].tolist()]


def _rule(rule: Rule | None) -> list[Any] | None:
    if rule is None:
        return None
    return [
        rule.variable,
        [list(key) for key in rule.keys],
        _short(rule.f1),
        _short(rule.precision),
        _short(rule.recall),
    ]


def _pairs(ids: torch.Tensor, values: torch.Tensor) -> list[tuple[int, float]]:
    return [(i, _short(value)) for i, value in zip(ids.tolist(), values.tolist(), strict=True)]


def _short(value: Any) -> float:
    """Rounded to so many digits as are kept."""
    return float(f"{float(value):.{_DIGITS}g}")
