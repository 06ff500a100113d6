"""What a model and its coder make of a text that a person has typed; hold ``Library.busy`` meanwhile."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.activations.coded import encoded
from unweave.errors import UserError
from unweave.models.tokens import special_ids
from unweave.types import Codes, TokenBatch
from unweave.web.library import Loaded

LONGEST_TEXT = 100_000
"""Characters that a text may have."""
_SEQUENCES = 32
"""Windows that the model reads at once."""


class CodedWindows(NamedTuple):
    """Codes of some windows at the tokens that the coder reads."""

    codes: Codes
    places: Int[Tensor, " B"]
    """Of each row of the codes in the joined windows."""


def windows(loaded: Loaded, text: str) -> list[TokenBatch]:
    """A text as sequences no longer than those of the training, in batches; the last sequence is in one of its own.

    Each begins as sequences of the training do. Special tokens are no content where the training left them out.
    Raises ``UserError`` for a text without tokens.
    """
    packing = loaded.recipe.packing
    ids = loaded.model.tokens(text, prepend_bos=False)[0]
    if not len(ids):
        raise UserError("the tokenizer makes no token of this text; type another one")
    start = loaded.model.tokens("", prepend_bos=packing.prepend_bos)[0].to(ids.dtype)
    parts = [torch.cat([start, part]) for part in ids.split(packing.context - len(start))]
    special = torch.tensor(special_ids(loaded.model) if packing.exclude_special_tokens else [], dtype=ids.dtype)
    whole = [parts[i : min(i + _SEQUENCES, len(parts) - 1)] for i in range(0, len(parts) - 1, _SEQUENCES)]
    return [_batch(torch.stack(group), special, packing.exclude_first_position) for group in [*whole, parts[-1:]]]


@torch.no_grad()
def coded_windows(loaded: Loaded, batch: TokenBatch) -> CodedWindows:
    """The codes of a batch of windows."""
    places = batch.is_content.flatten().nonzero().flatten()
    captured = loaded.model.capture(batch.token_ids.to(loaded.model.device), loaded.sites)
    return CodedWindows(encoded(loaded.coder, captured, places), places)


def activations(loaded: Loaded, batch: TokenBatch, latent: int) -> Float[Tensor, "N T"]:
    """One latent on every token of a batch of windows; 0 where the coder does not read the token."""
    if not batch.is_content.any():
        return torch.zeros(batch.token_ids.shape)
    codes, places = coded_windows(loaded, batch)
    mine = codes.latent_ids == latent
    found = torch.zeros(batch.token_ids.numel())
    found[places[codes.row_ids[mine].cpu()]] = codes.values[mine].float().cpu()
    return found.view(batch.token_ids.shape)


def _batch(token_ids: Int[Tensor, "N T"], special: Int[Tensor, " S"], without_first: bool) -> TokenBatch:
    is_content = ~torch.isin(token_ids, special)
    if without_first:
        is_content[:, 0] = False
    return TokenBatch(token_ids, torch.zeros_like(token_ids), is_content)
