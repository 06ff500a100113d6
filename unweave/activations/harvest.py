"""Run the model over token batches and flatten what is seen at the sites into rows."""

from collections.abc import Generator, Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.errors import UserError
from unweave.models.language_model import LanguageModel
from unweave.types import Rows, TokenBatch


def harvest(
    model: LanguageModel, batches: Iterable[TokenBatch], sites: Sequence[str], *, max_norm: float = 0.0
) -> Generator[Rows, None, None]:
    """One ``Rows`` per token batch, without the rows of special tokens; one pass of the model for all sites.

    Raises ``UserError`` for a site that has no row for each token.
    """
    for site in sites:
        if not model.sites.resolve(site).has_rows:
            raise UserError(f"{site} has numbers for pairs of tokens and no row for each, so it has no rows to harvest")
    for batch in batches:
        yield rows_of(batch, model.capture(batch.token_ids, sites), max_norm=max_norm)


def rows_of(batch: TokenBatch, captured: dict[str, torch.Tensor], *, max_norm: float = 0.0) -> Rows:
    """Flatten captured activations [N, T, D] and keep the rows of content tokens.

    ``max_norm``: leave out rows whose norm is over this many times the median norm of the batch's content rows, at any
    of the sites; 0 keeps all. Massive activations, which few tokens have and which dwarf all others, go that way.
    """
    keep = batch.is_content.flatten().nonzero().flatten()
    if max_norm:
        keep = without_massive(keep, captured, max_norm)
    length = batch.token_ids.shape[1]
    return Rows(
        {site: x.flatten(0, 1)[keep.to(x.device)] for site, x in captured.items()},
        batch.token_ids.flatten()[keep],
        batch.document_ids.flatten()[keep],
        keep // length,
        keep % length,
        batch.after,
    )


def without_massive(
    keep: Int[Tensor, " B"], captured: dict[str, Float[Tensor, "N T _"]], max_norm: float
) -> Int[Tensor, " C"]:
    """Of these rows of joined sequences, those whose norm is at most so many times the median at every site."""
    if not len(keep):
        return keep
    is_usual = torch.ones(len(keep), dtype=torch.bool)
    for x in captured.values():
        norms = x.flatten(0, 1)[keep.to(x.device)].float().norm(dim=1)
        is_usual &= (norms <= max_norm * norms.median()).cpu()
    return keep[is_usual]
