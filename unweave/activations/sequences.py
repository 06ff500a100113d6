"""Whole sequences of tokens, to be shuffled in the place of rows by a training that runs the model in each step."""

from collections.abc import Generator, Iterable, Mapping
from typing import NamedTuple

from jaxtyping import Shaped
from torch import Tensor

from unweave.types import TextPosition, TokenBatch

TOKENS, CONTENT = "token_ids", "is_content"
"""Names of what is kept of a sequence."""


class Sequences(NamedTuple):
    """Sequences of equal length that hold at least one content token each."""

    columns: Mapping[str, Shaped[Tensor, "N T"]]
    """Ids of the tokens, and which of them are content."""
    after: TextPosition | None = None
    """Where reading goes on behind them."""


def sequences(batches: Iterable[TokenBatch]) -> Generator[Sequences, None, None]:
    """The sequences of token batches, without those in which there is no row to train on."""
    for batch in batches:
        kept = batch.is_content.any(dim=1)
        yield Sequences({TOKENS: batch.token_ids[kept], CONTENT: batch.is_content[kept]}, batch.after)
