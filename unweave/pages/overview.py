"""What the charts of the first page draw: training curves, the histogram of densities, featured latents."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from unweave.latent_record import LatentRecord
from unweave.metrics.density import DENSE_FROM
from unweave.pages.data_script import compact
from unweave.pages.featured import featured_latents
from unweave.pages.latent_data import TokenTable, encode_example, n_measured

_BINS_PER_DECADE = 8
_MOST_POINTS = 1200
_NOT_LOSSES = {"step", "rows", "seconds", "lr", "l0", "explained_variance", "dead_share"}
_LOSSES = {"mse": "Reconstruction loss", "aux": "Auxiliary loss", "l1": "Sparsity loss"}


def overview(
    curve: Sequence[Mapping[str, float | int]], records: Sequence[LatentRecord], vocabulary: Sequence[str]
) -> dict[str, Any]:
    """All that ``report.js`` draws."""
    tokens = TokenTable(vocabulary)
    featured = [
        {
            "latent": choice.record.latent,
            "density": compact(choice.record.density),
            "max": compact(choice.record.max_activation),
            "token": tokens.place(choice.token_id),
            "agreeing": choice.n_agreeing,
            "examples": len(choice.record.examples),
            "example": encode_example(choice.record.examples[0], tokens),
            "promoted": [tokens.place(weight.token_id) for weight in choice.record.promoted[:3]],
        }
        for choice in featured_latents(records, vocabulary)
    ]
    return {
        "curves": training_curves(curve),
        "densities": density_histogram(records),
        "featured": featured,
        "tokens": tokens.payload(),
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


def density_histogram(records: Sequence[LatentRecord]) -> dict[str, Any]:
    """Counts of live latents in equal steps of log10 density; dead and dense ones are counted apart."""
    live = [record.density for record in records if record.n_fires > 0]
    bins = Counter(min(-1, math.floor(_BINS_PER_DECADE * math.log10(density) + 1e-9)) for density in live)
    span = range(min(bins), max(bins) + 1) if bins else range(0)
    return {
        "bin": 1 / _BINS_PER_DECADE,
        "starts": [place / _BINS_PER_DECADE for place in span],
        "counts": [bins[place] for place in span],
        "n_latents": len(records),
        "n_dead": len(records) - len(live),
        "n_dense": sum(density > DENSE_FROM for density in live),
        "n_tokens": n_measured(records),
    }
