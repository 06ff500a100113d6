"""Geometry and co-firing as suites: what ``analysis`` says of one coder, for a run's coder and its floors."""

import math
from collections.abc import Iterable, Mapping

from unweave.activations.coded import encoded
from unweave.activations.harvest import rows_of
from unweave.analysis.cofiring import DEFINITIONS, CoFiring, cofiring_figures
from unweave.analysis.geometry import alignment_figures, geometry
from unweave.analysis.matching import encoder_rows
from unweave.coders import SparseCoder
from unweave.evals.measured import Measured
from unweave.evals.pooled import check_coders
from unweave.models.language_model import LanguageModel
from unweave.models.stream_directions import stream_directions
from unweave.types import TokenBatch

_MOST_ACTIVE = 0.25
"""Share of latents active on a token from which on nothing is learned from who fires with whom."""


def measure_geometry(model: LanguageModel, coders: Mapping[str, SparseCoder]) -> dict[str, Measured]:
    """Figures of the weights alone, so without errors; alignments where a coder writes one site of the stream."""
    check_coders(model, coders)
    found = {}
    for name, coder in coders.items():
        read = encoder_rows(coder) if coder.wiring.writes_what_it_reads else None
        figures = geometry(coder.W_dec.detach(), read).figures
        known = stream_directions(model, coder.wiring.writes[0].site) if len(coder.wiring.writes) == 1 else {}
        if known:
            rows = {name: rows.to(coder.W_dec.device) for name, rows in known.items()}
            figures |= alignment_figures(
                coder.W_dec.detach(),
                unembedding_VD=rows.get("unembedding"),
                embedding_VD=rows.get("embedding"),
                neurons_ND=rows.get("neurons"),
            )
        found[name] = Measured(figures, {}, coder.n_latents, {})
    return found


def measure_cofiring(
    model: LanguageModel, coders: Mapping[str, SparseCoder], batches: Iterable[TokenBatch]
) -> dict[str, Measured]:
    """Which latents fire together; NaN for a coder that has a quarter of its latents or more active on a token."""
    check_coders(model, coders)
    sites = list(dict.fromkeys(port.site for coder in coders.values() for port in coder.wiring.reads))
    fired = {name: CoFiring(coder.n_latents, coder.n_latents) for name, coder in coders.items()}
    n_rows = 0
    for batch in batches:
        captured = model.capture(batch.token_ids, sites)
        rows = rows_of(batch, captured)
        places = rows.sequences * batch.token_ids.shape[1] + rows.positions
        n_rows += len(places)
        for name, coder in coders.items():
            codes = encoded(coder, captured, places)
            if len(codes.values) < _MOST_ACTIVE * len(places) * coder.n_latents:
                fired[name].update(codes, codes)
    nothing = {definition.name: math.nan for definition in DEFINITIONS}
    return {
        name: Measured(nothing if sums.n_rows < n_rows else cofiring_figures(sums), {}, n_rows, {})
        for name, sums in fired.items()
    }
