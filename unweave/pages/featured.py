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


class Best:
    """The best latents by ``RULE`` of all that it was shown; it keeps no other."""

    def __init__(self, vocabulary: Sequence[str], count: int = 6) -> None:
        """``vocabulary`` is the text of each token id."""
        self.vocabulary, self.count = vocabulary, count
        self._by_word: dict[str, Featured] = {}

    def show(self, record: LatentRecord) -> None:
        """Keep a latent where it is among the best so far."""
        if not _MIN_DENSITY <= record.density <= _MAX_DENSITY or len(record.examples) < _MIN_EXAMPLES:
            return
        candidate = Featured(record, *peak_tokens(record)[0])
        word = self.vocabulary[candidate.token_id].strip().casefold()
        if sum(map(str.isalpha, word)) > 1:
            rivals = [kept for kept in (self._by_word.get(word), candidate) if kept]
            self._by_word[word] = min(rivals, key=_rank)
            if len(self._by_word) > self.count:
                del self._by_word[max(self._by_word, key=lambda word: _rank(self._by_word[word]))]

    def chosen(self) -> list[Featured]:
        """At most ``count`` latents, the best first."""
        return sorted(self._by_word.values(), key=_rank)


def _rank(candidate: Featured) -> tuple[float, float, int]:
    """The smaller the better; the number decides between equals, so that the order of showing does not."""
    record = candidate.record
    return -candidate.n_agreeing / len(record.examples), -record.max_activation, record.latent
