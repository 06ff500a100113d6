"""The core figures of a coder: how well it reconstructs, how sparse it is, and what it costs the model."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.coders import Port, SparseCoder
from unweave.metrics import (
    L0,
    CodedRows,
    Density,
    FirstPosition,
    Jackknife,
    PlacedErrors,
    Reconstruction,
    SplicedLoss,
    SplicedLosses,
)
from unweave.models.language_model import LanguageModel
from unweave.types import Codes, Rows, TokenBatch


class Measured(NamedTuple):
    """Figures by name, and the standard error of each by leaving out blocks of text."""

    figures: dict[str, float]
    standard_errors: dict[str, float]


class MeasuredRows(NamedTuple):
    """Figures that need the rows alone, with what the splicing pass and the pages go on from."""

    measured: Measured
    n_rows: int
    mean_D: Float[Tensor, " D"]
    """Mean of the rows that should be written."""
    density_L: Float[Tensor, " L"]


def measure_rows(
    coder: SparseCoder,
    batches: Iterable[tuple[TokenBatch, Rows]],
    observe: Callable[[TokenBatch, Rows, Codes], None],
) -> MeasuredRows:
    """Reconstruction, L0 and density over all rows, in one pass; ``observe`` sees each batch with its codes."""
    reconstruction = Jackknife(lambda: Reconstruction(coder.wiring.d_write))
    l0, density, first = Jackknife(L0), Jackknife(lambda: Density(coder.n_latents)), Jackknife(FirstPosition)
    for batch, rows in batches:
        x, y = (_side_by_side(coder, rows.activations, ports) for ports in (coder.wiring.reads, coder.wiring.writes))
        codes = coder.encode(x)
        codes = codes.where(codes.values != 0)  # a GPU's codes may have explicit zeros, which are not active
        coded = CodedRows(y, codes, coder.reconstruct(codes, x))
        for metric in (reconstruction, l0, density):
            metric.update(coded)
        first.update(PlacedErrors(y - coded.x_hat, rows.positions))
        observe(batch, rows, codes)
    kept = (reconstruction, l0, density, first)
    totals = [metric.total() for metric in kept]
    all_rows, _, firing, _ = totals
    assert isinstance(all_rows, Reconstruction) and isinstance(firing, Density)
    figures = {name: value for total in totals for name, value in total.compute().items()}
    errors = {name: error for metric in kept for name, error in metric.standard_errors().items()}
    return MeasuredRows(Measured(figures, errors), all_rows.n_rows, all_rows.mean_D.float(), firing.density_L)


def measure_splicing(
    model: LanguageModel, coder: SparseCoder, batches: Iterable[TokenBatch], mean_D: Float[Tensor, " D"]
) -> Measured:
    """Next-token losses with what the coder writes in place of its sites, and with zero and the mean row there.

    The coder reads the model's own activations. Special tokens, which it was not trained on, keep theirs under every
    replacement.
    """
    wiring = coder.wiring
    means = dict(
        zip((port.site for port in wiring.writes), mean_D.split([p.width for p in wiring.writes]), strict=True)
    )
    loss = Jackknife(SplicedLoss)
    for batch in batches:
        is_special = ~batch.is_content.to(model.device)[..., None]
        written = _written(model, coder, batch)
        replacements: dict[str, dict[str, Callable[[Tensor], Tensor]]] = {
            "spliced": {site: lambda x, y=y: y.to(x.dtype) for site, y in written.items()},
            "zero_ablated": dict.fromkeys(written, torch.zeros_like),
            "mean_ablated": {site: lambda x, m=mean: m.to(x).expand_as(x) for site, mean in means.items()},
        }
        replaced = {}
        for name, at_sites in replacements.items():
            with model.patch({site: _outside(is_special, change) for site, change in at_sites.items()}):
                replaced[name] = model.logits(batch.token_ids)
        loss.update(SplicedLosses(batch.token_ids, model.logits(batch.token_ids), replaced))
    return Measured(loss.total().compute(), loss.standard_errors())


def _written(model: LanguageModel, coder: SparseCoder, batch: TokenBatch) -> dict[str, Float[Tensor, "N T _"]]:
    """What the coder writes at each of its sites, for every token."""
    wiring = coder.wiring
    captured = model.capture(batch.token_ids, [port.site for port in wiring.reads])
    rows = {site: x.flatten(0, 1) for site, x in captured.items()}
    parts = coder(_side_by_side(coder, rows, wiring.reads)).split([port.width for port in wiring.writes], dim=1)
    shape = batch.token_ids.shape
    return {port.site: part.unflatten(0, shape) for port, part in zip(wiring.writes, parts, strict=True)}


def _side_by_side(coder: SparseCoder, activations: Mapping[str, Tensor], ports: tuple[Port, ...]) -> Tensor:
    return torch.cat([activations[port.site].to(coder.W_dec.dtype) for port in ports], dim=1)


def _outside(is_special: Tensor, replacement: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.where(is_special, x, replacement(x))
