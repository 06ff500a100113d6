"""A run's coder beside its controls: what they are made of is found on the first held-out rows."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.activations.coded import encoded
from unweave.activations.harvest import rows_of
from unweave.coders import SparseCoder
from unweave.evals.controls import Kind, control, control_kinds
from unweave.pipelines.workbench import Workbench
from unweave.types import TokenBatch

FIRST_TOKENS = 16_384
"""Held-out tokens for the mean row, for principal directions, and for the L0 that controls have, at most."""
FLOOR_SEED = 0
"""Draws the directions of random coders."""


class FirstRows(NamedTuple):
    """What must be known of some rows before anything is measured."""

    means: dict[str, Float[Tensor, " _"]]
    """The mean row of each site that is written."""
    kinds: dict[str, dict[str, Kind]]
    """The controls of each SAE, by their name."""
    controls: dict[Kind, SparseCoder]
    """Every control once, though several coders may share it."""


@torch.no_grad()
def first_rows(
    bench: Workbench, coders: Mapping[str, SparseCoder], batches: Iterable[TokenBatch], *, with_controls: bool = True
) -> FirstRows:
    """Read batches once, for the mean rows of what coders write and for their controls, on the model's device."""
    saes = {name: coder for name, coder in coders.items() if with_controls and coder.wiring.kind == "sae"}
    ports = [port for coder in coders.values() for port in coder.wiring.writes]
    sites = list(dict.fromkeys(port.site for port in ports))
    totals: dict[str, Tensor] = {}
    rows: dict[str, list[Tensor]] = {coder.site: [] for coder in saes.values()}
    n_rows, n_active = 0, dict.fromkeys(saes, 0)
    for batch in batches:
        captured = bench.model.capture(batch.token_ids, sites)
        found = rows_of(batch, captured, max_norm=bench.recipe.packing.max_norm)
        n_rows += len(found)
        for site, x in found.activations.items():
            totals[site] = totals.get(site, 0.0) + x.double().sum(0)
            if site in rows:
                rows[site].append(x)
        places = found.sequences * batch.token_ids.shape[1] + found.positions
        for name, coder in saes.items():
            n_active[name] += int((encoded(coder, captured, places).values != 0).sum())
    kinds = {name: control_kinds(coder, n_active[name] / n_rows) for name, coder in saes.items()}
    wanted = dict.fromkeys(kind for of_coder in kinds.values() for kind in of_coder.values())
    controls = {kind: control(kind, torch.cat(rows[kind.site]), FLOOR_SEED) for kind in wanted}
    return FirstRows({site: (total / n_rows).float() for site, total in totals.items()}, kinds, controls)
