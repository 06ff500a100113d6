"""Choose a few latents for the first page whose strongest examples agree on what they fire on."""

from collections.abc import Sequence
from typing import NamedTuple

from unweave.latent_record import LatentRecord
from unweave.pages.latent_data import peak_tokens

RULE = (
    "Chosen by rule, not by hand: of the latents that fire on 0.01 % to 1 % of tokens, those whose strongest examples "
    "agree most on the token at the peak; then by strength; one latent for each word."
)
"""The rule in words, as the page states it."""

_MIN_DENSITY = 1e-4
_MAX_DENSITY = 1e-2
_MIN_EXAMPLES = 4


class Featured(NamedTuple):
    """A latent and how well its examples agree."""

    record: LatentRecord
    token_id: int
    """The token on which most examples peak."""
    n_agreeing: int


def featured_latents(records: Sequence[LatentRecord], vocabulary: Sequence[str], count: int = 6) -> list[Featured]:
    """Up to ``count`` latents by ``RULE``."""
    candidates = [
        Featured(record, *peak_tokens(record)[0])
        for record in records
        if _MIN_DENSITY <= record.density <= _MAX_DENSITY and len(record.examples) >= _MIN_EXAMPLES
    ]
    candidates.sort(key=lambda c: (-c.n_agreeing / len(c.record.examples), -c.record.max_activation))
    chosen: dict[str, Featured] = {}
    for candidate in candidates:
        word = vocabulary[candidate.token_id].strip().casefold()
        if sum(map(str.isalpha, word)) > 1:
            chosen.setdefault(word, candidate)
    return list(chosen.values())[:count]
