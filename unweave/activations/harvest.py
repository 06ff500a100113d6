"""Run the model over token batches and flatten what is seen at the sites into rows."""

from collections.abc import Iterable, Iterator, Sequence

import torch

from unweave.models.language_model import LanguageModel
from unweave.types import Rows, TokenBatch


def harvest(model: LanguageModel, batches: Iterable[TokenBatch], sites: Sequence[str]) -> Iterator[Rows]:
    """One ``Rows`` per token batch, without the rows of special tokens; one pass of the model for all sites."""
    for batch in batches:
        yield rows_of(batch, model.capture(batch.token_ids, sites))


def rows_of(batch: TokenBatch, captured: dict[str, torch.Tensor]) -> Rows:
    """Flatten captured activations [N, T, D] and keep the rows of content tokens."""
    keep = batch.is_content.flatten().nonzero().flatten()
    length = batch.token_ids.shape[1]
    return Rows(
        {site: x.flatten(0, 1)[keep.to(x.device)] for site, x in captured.items()},
        batch.token_ids.flatten()[keep],
        batch.document_ids.flatten()[keep],
        keep // length,
        keep % length,
    )
