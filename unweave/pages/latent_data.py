"""What pages say of a latent beyond its record: its row in the table, its flags, and the tokens that they show."""

from collections import Counter
from collections.abc import Sequence

from unweave.latent_record import Example, LatentRecord
from unweave.storage.latent_table import TableRow

FLAGS = {"dead": (-1.0, 0.0), "dense over 10 %": (0.1, 1.0), "dense over 1 %": (0.01, 0.1)}
"""What is said of latents by the share of tokens on which they fire: more than the first, at most the second."""
_SHOWN = 5
"""Tokens of each kind in a row of the table."""


def flags_of(density: float) -> list[str]:
    """Those of a latent that fires on so large a share of tokens."""
    return [name for name, (above, most) in FLAGS.items() if above < density <= most]


def row_of(record: LatentRecord, vocabulary: Sequence[str]) -> TableRow:
    """A latent in the table, as the index has it there."""
    token, rule = record.telling.get("token"), record.rule
    return TableRow(
        latent=record.latent,
        n_fires=record.n_fires,
        density=record.density,
        max=record.max_activation,
        mean=record.mean_activation,
        told=token.share if token else 0.0,
        f1=rule.f1 if rule else 0.0,
        similar=record.similar[0].cosine if record.similar else 0.0,
        jaccard=record.partners[0].jaccard if record.partners else 0.0,
        peaks=[vocabulary[token] for token, _ in peak_tokens(record)[:_SHOWN]],
        promoted=[vocabulary[weight.token_id] for weight in record.promoted[:_SHOWN]],
        rule=["".join(vocabulary[token] for token in key) for key in rule.token_ids[:_SHOWN]] if rule else [],
    )


def peak_tokens(record: LatentRecord) -> list[tuple[int, int]]:
    """Token ids on which the examples peak, with counts: the most common first, then those of stronger examples."""
    return Counter(example.token_ids[example.peak] for example in record.examples).most_common()


def shown_examples(record: LatentRecord) -> list[Example]:
    """The strongest examples, and those drawn from all strengths."""
    return [*record.examples, *(example for group in record.groups for example in group.examples)]


def shown_tokens(record: LatentRecord) -> set[int]:
    """Ids of all tokens that the page of a latent shows."""
    shown = {token for example in shown_examples(record) for token in example.token_ids}
    shown.update(weight.token_id for weight in (*record.promoted, *record.suppressed))
    told = (count for name, telling in record.telling.items() if name != "position" for count in telling.top)
    shown.update(token for count in told for token in count.token_ids)
    if record.rule is not None:
        shown.update(token for key in record.rule.token_ids for token in key)
    return shown
