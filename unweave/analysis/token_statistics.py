"""Which tokens make a latent fire: how much this token, those around it and the position tell, and a rule if one fits.

A variable gives every token of a text a key: the token itself, the previous or the next one, the position, or the last
two or three tokens. The text's documents are split in two. Of the first half the rate q(x) at which a latent fires at
key x is learned, with one pseudo-row at its overall rate p; on the other half it is used:

    explained = 1 - (cross entropy of firing under q) / (cross entropy of firing under p)

1 where the key decides, 0 (or less, shown as 0) where it says nothing that holds in other documents.

A rule names up to eight keys. On the first half these are the ones that maximise F1 of "fires where the key is one of
them": the set of all keys at which the share of fires is at least F1/2 (Lipton, Elkan and Naryanaswamy 2014,
arXiv 1402.1892); its most frequent eight are kept, and F1, precision and recall are those on the other half.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numba
import numpy as np
from jaxtyping import Bool, Float, Int

from unweave.analysis.fires import Fires, IndexedText
from unweave.kernels.compiled import loop, parallel
from unweave.kernels.ordering import falling

PATTERNS = ("token", "previous", "bigram", "trigram")
"""Variables that a rule can be made of, simplest first."""
VARIABLES = ("token", "previous", "next", "position", "bigram", "trigram")
MOST_KEYS = 8
"""Keys of a rule."""
_BETTER = 0.02
"""By how much the F1 of a longer rule must exceed that of a simpler one."""


class Variable(NamedTuple):
    """What is known of every token of a text."""

    name: str
    keys: Int[np.ndarray, " P"]
    """A key for each place of the text; -1 where the coder read no row or there is no such token."""
    meaning: Int[np.ndarray, "K N"]
    """The tokens, or the position, that each key stands for."""
    rows: Int[np.ndarray, "2 K"]
    """Rows with each key, in each half of the documents."""


class Explained(NamedTuple):
    """What one variable tells of when some latents fire; a row for each latent."""

    share: Float[np.ndarray, " C"]
    """Share of the uncertainty about firing that the variable takes away, on documents that it was not learned from."""
    entropy: Float[np.ndarray, " C"]
    """Entropy in bits of the variable where the latent fires."""
    top: Int[np.ndarray, "C M"]
    """The keys at which it fires most often; -1 where there are no more."""
    top_counts: Int[np.ndarray, "C M"]
    rule: Int[np.ndarray, "C M"]
    """Keys of the rule."""
    marks: Float[np.ndarray, "C 3"]
    """F1, precision and recall of the rule."""


class Rule(NamedTuple):
    """A latent fires where the text matches one of these."""

    variable: str
    keys: list[tuple[int, ...]]
    """Tokens."""
    f1: float
    precision: float
    recall: float


def second_half(text: IndexedText) -> Bool[np.ndarray, " P"]:
    """Whether each place is in the half that is measured on: every other document, or sequence if there is but one."""
    documents = text.document_ids.reshape(-1)
    if documents.min() == documents.max():
        return np.repeat(np.arange(len(text.token_ids)) % 2 == 1, text.context)
    return documents % 2 == 1


def variables(text: IndexedText) -> Iterator[Variable]:
    """Every variable of ``VARIABLES`` in turn; only one is held at a time."""
    tokens = text.token_ids.astype(np.int64)
    half = second_half(text)
    for name in VARIABLES:
        parts = _parts(name, tokens)
        is_known = (parts >= 0).all(0) & text.is_row
        meaning, found = (
            np.unique(parts[:, is_known].T, axis=0, return_inverse=True)
            if len(parts) > 1
            else _single(parts[0][is_known])
        )
        keys = np.full(tokens.shape, -1, dtype=np.int32)
        keys[is_known] = found
        keys = keys.reshape(-1)
        rows = [np.bincount(keys[(keys >= 0) & (half == side)], minlength=len(meaning)) for side in (False, True)]
        yield Variable(name, keys, meaning, np.stack(rows))


def explained(fires: Fires, variable: Variable, half: Bool[np.ndarray, " P"]) -> Explained:
    """What a variable tells of each latent's fires."""
    rows = variable.rows
    weights = 1.0 / (rows[0] + 1.0)
    unseen = float((rows[1] * weights).sum())
    totals = rows.sum(1)
    n = len(fires.offsets) - 1
    share, entropy, marks = np.zeros(n), np.zeros(n), np.zeros((n, 3))
    top, rule = (np.full((n, MOST_KEYS), -1) for _ in range(2))
    top_counts = np.zeros((n, MOST_KEYS), dtype=np.int64)
    found = (share, entropy, top, top_counts, rule, marks)
    _explain_all(fires.places, fires.offsets, variable.keys, half, rows, totals, weights, unseen, *found)
    return Explained(*found)


def rules(
    found: dict[str, Explained], meanings: dict[str, Int[np.ndarray, "K N"]], least_f1: float
) -> list[Rule | None]:
    """The best rule of each latent, the simplest of those that are about as good; None where none reaches ``least_f1``.

    ``found`` and ``meanings`` have the variables of ``PATTERNS``.
    """
    best: list[Rule | None] = []
    for latent in range(len(next(iter(found.values())).share)):
        chosen = None
        for name in PATTERNS:
            f1, precision, recall = found[name].marks[latent].tolist()
            if f1 >= (least_f1 if chosen is None else chosen.f1 + _BETTER):
                keys = found[name].rule[latent]
                tokens = [tuple(meanings[name][key].tolist()) for key in keys[keys >= 0]]
                chosen = Rule(name, tokens, f1, precision, recall)
        best.append(chosen)
    return best


def _parts(name: str, tokens: Int[np.ndarray, "S T"]) -> Int[np.ndarray, "N S T"]:
    """The numbers that make up a key at each place; -1 where there is none."""
    if name == "position":
        return np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)[None]
    shifts = {"token": (0,), "previous": (1,), "next": (-1,), "bigram": (1, 0), "trigram": (2, 1, 0)}[name]
    return np.stack([_shifted(tokens, shift) for shift in shifts])


def _shifted(tokens: Int[np.ndarray, "S T"], by: int) -> Int[np.ndarray, "S T"]:
    out = np.full_like(tokens, -1)
    if by >= 0:
        out[:, by:] = tokens[:, : tokens.shape[1] - by]
    else:
        out[:, :by] = tokens[:, -by:]
    return out


def _single(values: Int[np.ndarray, " N"]) -> tuple[Int[np.ndarray, "K 1"], Int[np.ndarray, " N"]]:
    meaning, found = np.unique(values, return_inverse=True)
    return meaning[:, None], found


@parallel
def _explain_all(  # type: ignore[no-untyped-def]
    places, offsets, keys, half, rows, totals, weights, unseen, share, entropy, top, top_counts, rule, marks
):
    for i in numba.prange(len(offsets) - 1):
        own = places[offsets[i] : offsets[i + 1]]
        share[i], entropy[i] = _explain(
            own, keys, half, rows, totals, weights, unseen, top[i], top_counts[i], rule[i], marks[i]
        )


@loop
def _explain(places, keys, half, rows, totals, weights, unseen, top, top_counts, rule, marks):  # type: ignore[no-untyped-def]
    """The share and the entropy of one latent; the rest is written where it belongs."""
    found, fires = _counted(places, keys, half)
    learned, measured = 0, 0
    for k in range(len(found)):
        learned += fires[0, k]
        measured += fires[1, k]
    both, entropy = np.empty(len(found), dtype=np.int64), 0.0
    for k in range(len(found)):
        both[k] = fires[0, k] + fires[1, k]
        entropy -= both[k] / (learned + measured) * np.log2(both[k] / (learned + measured))
    order = falling(both)
    for k in range(min(len(order), len(top))):
        top[k], top_counts[k] = found[order[k]], both[order[k]]
    if learned == 0 or measured == 0:
        return 0.0, entropy
    chosen = _rule(found, fires[0], learned, rows[0], len(rule))
    hits, named = 0, 0
    for k in range(len(chosen)):
        rule[k] = found[chosen[k]]
        hits += fires[1, chosen[k]]
        named += rows[1, found[chosen[k]]]
    marks[0], marks[1], marks[2] = 2 * hits / (named + measured), hits / max(named, 1), hits / measured
    return _share(found, fires, learned / totals[0], measured, rows[1], totals[1], weights, unseen), entropy


@loop
def _counted(places, keys, half):  # type: ignore[no-untyped-def]
    """The keys at some places in rising order, and how often each comes in each half."""
    marked = np.empty(len(places), dtype=np.int64)
    n = 0
    for place in places:
        if keys[place] >= 0:
            marked[n] = np.int64(keys[place]) * 2 + half[place]
            n += 1
    marked = np.sort(marked[:n])
    found = np.empty(n, dtype=np.int64)
    counts = np.zeros((2, n), dtype=np.int64)
    m = 0
    for k in range(n):
        if k > 0 and marked[k] // 2 != marked[k - 1] // 2:
            m += 1
        found[m] = marked[k] // 2
        counts[marked[k] % 2, m] += 1
    m += n > 0
    return found[:m], counts[:, :m]


@loop
def _share(found, fires, rate, expected, rows, n_rows, weights, unseen):  # type: ignore[no-untyped-def]
    """The explained share; at keys where no fire was learned of, ``log(1 - q)`` is taken as ``-q``, which is tiny.

    ``rate`` is that of the first half; the ``expected`` fires and the rows are those of the second.
    """
    plain = -(expected * np.log(rate) + (n_rows - expected) * np.log1p(-min(rate, 1 - 1e-12)))
    told, silent = 0.0, unseen
    for k in range(len(found)):
        key = found[k]
        learned = min((fires[0, k] + rate) * weights[key], 1 - 1e-12)
        told -= fires[1, k] * np.log(learned) + (rows[key] - fires[1, k]) * np.log1p(-learned)
        silent -= rows[key] * weights[key]
    return max(0.0, 1.0 - (told + rate * silent) / plain) if plain > 0 else 0.0


@loop
def _rule(found, fires, n_fires, rows, most):  # type: ignore[no-untyped-def]
    """Which keys name the latent's fires best in the first half: the best prefix by precision, its most frequent."""
    precision = np.empty(len(found))
    for k in range(len(found)):
        precision[k] = fires[k] / max(rows[found[k]], 1)
    order = falling(precision)
    hits, named, best, n_best = 0, 0, 0.0, 0
    for k in range(len(order)):
        hits += fires[order[k]]
        named += rows[found[order[k]]]
        f1 = 2 * hits / (named + n_fires)
        if f1 > best:
            best, n_best = f1, k + 1
    chosen = order[:n_best]
    return chosen[falling(fires[chosen])][:most]
