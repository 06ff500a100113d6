"""The core figures of a coder: how well it reconstructs, how sparse it is, and what it costs the model."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.coders import SparseCoder
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

Reconstruct = Callable[[Float[Tensor, "B D"]], Float[Tensor, "B D"]]


class Measured(NamedTuple):
    """Figures by name, and the standard error of each by leaving out blocks of text."""

    figures: dict[str, float]
    standard_errors: dict[str, float]


class MeasuredRows(NamedTuple):
    """Figures that need the rows alone, with what the splicing pass and the pages go on from."""

    measured: Measured
    n_rows: int
    mean_D: Float[Tensor, " D"]
    """Mean of the measured rows."""
    density_L: Float[Tensor, " L"]


def measure_rows(
    coder: SparseCoder,
    site: str,
    batches: Iterable[tuple[TokenBatch, Rows]],
    observe: Callable[[TokenBatch, Rows, Codes], None],
) -> MeasuredRows:
    """Reconstruction, L0 and density over all rows, in one pass; ``observe`` sees each batch with its codes."""
    reconstruction = Jackknife(lambda: Reconstruction(coder.d_model))
    l0, density, first = Jackknife(L0), Jackknife(lambda: Density(coder.n_latents)), Jackknife(FirstPosition)
    for batch, rows in batches:
        x = rows.activations[site].to(coder.W_dec.dtype)
        codes = coder.encode(x)
        coded = CodedRows(x, codes, coder.decode(codes))
        for metric in (reconstruction, l0, density):
            metric.update(coded)
        first.update(PlacedErrors(x - coded.x_hat, rows.positions))
        observe(batch, rows, codes)
    kept = (reconstruction, l0, density, first)
    totals = [metric.total() for metric in kept]
    all_rows, _, firing, _ = totals
    assert isinstance(all_rows, Reconstruction) and isinstance(firing, Density)
    figures = {name: value for total in totals for name, value in total.compute().items()}
    errors = {name: error for metric in kept for name, error in metric.standard_errors().items()}
    return MeasuredRows(Measured(figures, errors), all_rows.n_rows, all_rows.mean_D.float(), firing.density_L)


def measure_splicing(
    model: LanguageModel,
    site: str,
    batches: Iterable[TokenBatch],
    reconstruct: Reconstruct,
    mean_D: Float[Tensor, " D"],
) -> Measured:
    """Next-token losses with the site replaced by its reconstruction, by zero and by the mean row.

    Special tokens, which the coder was not trained on, keep their own activations under every replacement.
    """
    replacements = {
        "spliced": lambda x: reconstruct(x.flatten(0, 1)).view_as(x).to(x.dtype),
        "zero_ablated": torch.zeros_like,
        "mean_ablated": lambda x: mean_D.to(x).expand_as(x),
    }
    loss = Jackknife(SplicedLoss)
    for batch in batches:
        is_special = ~batch.is_content.to(model.device)[..., None]
        replaced = {}
        for name, replacement in replacements.items():
            with model.patch({site: _outside(is_special, replacement)}):
                replaced[name] = model.logits(batch.token_ids)
        loss.update(SplicedLosses(batch.token_ids, model.logits(batch.token_ids), replaced))
    return Measured(loss.total().compute(), loss.standard_errors())


def _outside(is_special: Tensor, replacement: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.where(is_special, x, replacement(x))
