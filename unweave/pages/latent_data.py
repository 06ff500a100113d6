"""What the latent browser loads: a table of all latents at the start, and their examples in chunks, when asked for."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from unweave.latent_record import Example, LatentRecord, TokenWeight
from unweave.pages.data_script import compact

CHUNK = 256
"""Latents per file of examples."""

_PROMOTED_IN_INDEX = 5
"""Promoted tokens that the search sees."""


class TokenTable:
    """Numbers the tokens that a page shows, in order of first use, so that each text is written once."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        """``vocabulary`` is the text of each token id."""
        self.vocabulary = vocabulary
        self.places: dict[int, int] = {}

    def place(self, token_id: int) -> int:
        """Where the token stands in the table."""
        return self.places.setdefault(token_id, len(self.places))

    def payload(self) -> dict[str, list[Any]]:
        """The table so far: ``texts``, and the tokenizer's ``ids`` for them."""
        return {"texts": [self.vocabulary[i] for i in self.places], "ids": list(self.places)}


def latent_index(records: Sequence[LatentRecord], tokens: TokenTable) -> dict[str, Any]:
    """Columns over all latents, in the order of their numbers."""
    assert [r.latent for r in records] == list(range(len(records))), "records must hold every latent once, in order"
    return {
        "n_latents": len(records),
        "n_tokens": n_measured(records),
        "chunk": CHUNK,
        "n_fires": [r.n_fires for r in records],
        "density": [compact(r.density) for r in records],
        "max": [compact(r.max_activation) for r in records],
        "mean": [compact(r.mean_activation) for r in records],
        "peaks": [[tokens.place(token) for token, _ in peak_tokens(r)] for r in records],
        "promoted": [[tokens.place(w.token_id) for w in r.promoted[:_PROMOTED_IN_INDEX]] for r in records],
    }


def latent_chunks(records: Sequence[LatentRecord], tokens: TokenTable) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and content of each file of ``CHUNK`` latents."""
    for first in range(0, len(records), CHUNK):
        latents = [encode_latent(record, tokens) for record in records[first : first + CHUNK]]
        yield f"latents-{first // CHUNK:04d}", {"first": first, "latents": latents}


def encode_latent(record: LatentRecord, tokens: TokenTable) -> dict[str, Any]:
    """Examples and token weights of one latent."""
    return {
        "examples": [encode_example(example, tokens) for example in record.examples],
        "promoted": [_encode_weight(weight, tokens) for weight in record.promoted],
        "suppressed": [_encode_weight(weight, tokens) for weight in record.suppressed],
    }


def encode_example(example: Example, tokens: TokenTable) -> dict[str, Any]:
    """One stretch of text."""
    return {
        "tokens": [tokens.place(token) for token in example.token_ids],
        "activations": [compact(activation) for activation in example.activations],
        "peak": example.peak,
        "document": example.document,
    }


def peak_tokens(record: LatentRecord) -> list[tuple[int, int]]:
    """Token ids on which the examples peak, with counts: the most common first, then those of stronger examples."""
    return Counter(example.token_ids[example.peak] for example in record.examples).most_common()


def n_measured(records: Sequence[LatentRecord]) -> int:
    """Tokens that the records were measured on; 0 where no latent fired."""
    busiest = max(records, key=lambda record: record.n_fires, default=None)
    if busiest is None or not busiest.density > 0:
        return 0
    return round(busiest.n_fires / busiest.density)


def _encode_weight(weight: TokenWeight, tokens: TokenTable) -> list[Any]:
    return [tokens.place(weight.token_id), compact(weight.weight)]
