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


class RowMeasures:
    """Reconstruction, L0 and density of one coder, batch by batch."""

    def __init__(self, coder: SparseCoder) -> None:
        self.coder = coder
        self._reconstruction = Jackknife(lambda: Reconstruction(coder.wiring.d_write))
        self._l0, self._density = Jackknife(L0), Jackknife(lambda: Density(coder.n_latents))
        self._first = Jackknife(FirstPosition)

    def update(self, rows: Rows) -> Codes:
        """Add a batch of running text; returns its codes."""
        coder = self.coder
        x, y = (_side_by_side(coder, rows.activations, ports) for ports in (coder.wiring.reads, coder.wiring.writes))
        codes = coder.encode(x)
        codes = codes.where(codes.values != 0)  # a GPU's codes may have explicit zeros, which are not active
        coded = CodedRows(y, codes, coder.reconstruct(codes, x))
        for metric in (self._reconstruction, self._l0, self._density):
            metric.update(coded)
        self._first.update(PlacedErrors(y - coded.x_hat, rows.positions))
        return codes

    def compute(self) -> MeasuredRows:
        kept = (self._reconstruction, self._l0, self._density, self._first)
        totals = [metric.total() for metric in kept]
        all_rows, _, firing, _ = totals
        assert isinstance(all_rows, Reconstruction) and isinstance(firing, Density)
        figures = {name: value for total in totals for name, value in total.compute().items()}
        errors = {name: error for metric in kept for name, error in metric.standard_errors().items()}
        return MeasuredRows(Measured(figures, errors), all_rows.n_rows, all_rows.mean_D.float(), firing.density_L)


class Splice(NamedTuple):
    """A coder to put into the model."""

    coder: SparseCoder
    mean_D: Float[Tensor, " D"]
    """Mean of the rows that should be written, which is spliced in for comparison."""


def measure_splicing(
    model: LanguageModel, splices: Mapping[str, Splice], batches: Iterable[TokenBatch]
) -> dict[str, Measured]:
    """Next-token losses with what each coder writes in place of its sites, and with zero and the mean row there.

    The coders read the model's own activations. Special tokens, which they were not trained on, keep theirs under every
    replacement. Coders that write the same sites share the passes of the model that do not depend on a coder.
    """
    losses = {name: Jackknife(SplicedLoss) for name in splices}
    for batch in batches:
        clean = model.logits(batch.token_ids)
        captured = model.capture(batch.token_ids, _read_sites(splices))
        ablated: dict[tuple[str, ...], dict[str, Tensor]] = {}
        for name, splice in splices.items():
            sites = tuple(port.site for port in splice.coder.wiring.writes)
            if sites not in ablated:
                ablated[sites] = _ablated(model, splice, batch)
            written = _written(splice.coder, captured)
            spliced = _logits(model, batch, {site: lambda x, y=y: y.to(x.dtype) for site, y in written.items()})
            replaced = {"spliced": spliced, **ablated[sites]}
            losses[name].update(SplicedLosses(batch.token_ids, clean, replaced, batch.is_padding))
    return {name: Measured(loss.total().compute(), loss.standard_errors()) for name, loss in losses.items()}


def _read_sites(splices: Mapping[str, Splice]) -> list[str]:
    return list(dict.fromkeys(port.site for splice in splices.values() for port in splice.coder.wiring.reads))


def _ablated(model: LanguageModel, splice: Splice, batch: TokenBatch) -> dict[str, Float[Tensor, "N T V"]]:
    writes = splice.coder.wiring.writes
    means = dict(zip((port.site for port in writes), splice.mean_D.split([p.width for p in writes]), strict=True))
    return {
        "zero_ablated": _logits(model, batch, dict.fromkeys(means, torch.zeros_like)),
        "mean_ablated": _logits(
            model, batch, {site: lambda x, m=mean: m.to(x).expand_as(x) for site, mean in means.items()}
        ),
    }


def _logits(
    model: LanguageModel, batch: TokenBatch, changes: Mapping[str, Callable[[Tensor], Tensor]]
) -> Float[Tensor, "N T V"]:
    is_special = ~batch.is_content.to(model.device)[..., None]
    with model.patch({site: _outside(is_special, change) for site, change in changes.items()}):
        return model.logits(batch.token_ids)


def _written(coder: SparseCoder, captured: Mapping[str, Float[Tensor, "N T _"]]) -> dict[str, Float[Tensor, "N T _"]]:
    """What the coder writes at each of its sites, for every token."""
    wiring = coder.wiring
    rows = {port.site: captured[port.site].flatten(0, 1) for port in wiring.reads}
    parts = coder(_side_by_side(coder, rows, wiring.reads)).split([port.width for port in wiring.writes], dim=1)
    shape = captured[wiring.reads[0].site].shape[:2]
    return {port.site: part.unflatten(0, shape) for port, part in zip(wiring.writes, parts, strict=True)}


def _side_by_side(coder: SparseCoder, activations: Mapping[str, Tensor], ports: tuple[Port, ...]) -> Tensor:
    return torch.cat([activations[port.site].to(coder.W_dec.dtype) for port in ports], dim=1)


def _outside(is_special: Tensor, replacement: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.where(is_special, x, replacement(x))
