"""What the charts of the first page draw: training curves, the histogram of densities, featured latents."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from unweave.latent_record import Example
from unweave.metrics.density import DENSE_FROM
from unweave.pages.data_script import compact
from unweave.pages.featured import Featured

_BINS_PER_DECADE = 8
_MOST_POINTS = 1200
_PROMOTED = 3
"""Promoted tokens on a card."""
_NOT_LOSSES = {"step", "rows", "seconds", "lr", "l0", "explained_variance", "dead_share"}
_LOSSES = {"mse": "Reconstruction loss", "aux": "Auxiliary loss", "l1": "Sparsity loss"}


def featured_cards(chosen: Sequence[Featured], vocabulary: Sequence[str]) -> dict[str, Any]:
    """What the cards of latents show, and ``texts`` of the tokens in it."""
    cards = [
        {
            "latent": one.record.latent,
            "density": compact(one.record.density),
            "max": compact(one.record.max_activation),
            "token": one.token_id,
            "agreeing": one.n_agreeing,
            "examples": len(one.record.examples),
            "example": _example(one.record.examples[0]),
            "promoted": [weight.token_id for weight in one.record.promoted[:_PROMOTED]],
        }
        for one in chosen
    ]
    shown = {token for card in cards for token in (card["token"], *card["example"]["token_ids"], *card["promoted"])}
    return {"featured": cards, "texts": {token: vocabulary[token] for token in sorted(shown)}}


def _example(example: Example) -> dict[str, Any]:
    return {
        "token_ids": example.token_ids,
        "activations": [compact(activation) for activation in example.activations],
        "peak": example.peak,
        "document": example.document,
    }


def training_curves(curve: Sequence[Mapping[str, float | int]]) -> dict[str, Any]:
    """Panels of the training charts, with one value per row of ``rows``; None where a step did not log it."""
    stride = math.ceil(len(curve) / _MOST_POINTS) or 1
    shown = list(curve[::-1][::stride])[::-1]  # counted from the end, so that the last step is always there
    losses = dict.fromkeys(name for line in curve for name in line if name not in _NOT_LOSSES)
    panels = [(name, f"{_LOSSES[name]} ({name})" if name in _LOSSES else f"Loss ({name})", "loss") for name in losses]
    panels += [
        ("explained_variance", "Explained variance", "share"),
        ("l0", "L0, active latents per token", "number"),
        ("dead_share", "Dead latents", "percent"),
        ("lr", "Learning rate", "number"),
    ]
    return {
        "rows": [line["rows"] for line in shown],
        "stride": stride,
        "panels": [
            {"name": name, "title": title, "kind": kind, "values": [compact(x.get(name, math.nan)) for x in shown]}
            for name, title, kind in panels
            if any(name in line for line in curve)
        ],
    }


def density_histogram(densities: Sequence[float]) -> dict[str, Any]:
    """Counts of live latents in equal steps of log10 density; dead and dense ones are counted apart."""
    live = [density for density in densities if density > 0]
    bins = Counter(min(-1, math.floor(_BINS_PER_DECADE * math.log10(density) + 1e-9)) for density in live)
    span = range(min(bins), max(bins) + 1) if bins else range(0)
    return {
        "bin": 1 / _BINS_PER_DECADE,
        "starts": [place / _BINS_PER_DECADE for place in span],
        "counts": [bins[place] for place in span],
        "n_latents": len(densities),
        "n_dead": len(densities) - len(live),
        "n_dense": sum(density > DENSE_FROM for density in live),
    }
