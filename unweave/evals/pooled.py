"""What a model and several coders make of texts, in one pass: weighted sums of rows and of latents.

An example is a sum over tokens of one text, x = sum_t w_t x_t and f = sum_t w_t f_t: the mean over the text's content
tokens, its last content token, or any one token. Rows are dense [N, D], latents are sparse [N, L]. Special tokens and
padding have no weight. Padding stands behind the text, where a causal model cannot see it from the text.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array, vstack
from torch import Tensor

from unweave.activations.coded import encoded, rows_at
from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.models.language_model import LanguageModel
from unweave.models.tokens import special_ids
from unweave.types import Codes

Pooling = Literal["mean", "last"]
_TOKENS_AT_ONCE = 8192


class TokenSums(NamedTuple):
    """Which tokens are in which example, with what weight; sorted by text, and a text's examples are its own."""

    examples: Int[np.ndarray, " E"]
    texts: Int[np.ndarray, " E"]
    positions: Int[np.ndarray, " E"]
    weights: Float[np.ndarray, " E"]
    n_examples: int


class Pooled(NamedTuple):
    """Examples as each coder reads them, and their latents, by the name of the coder."""

    rows: dict[str, Float[np.ndarray, "N _"]]
    latents: dict[str, csr_array]


class _Group(NamedTuple):
    """Some of the texts as one batch of tokens, and the sums of their tokens."""

    tokens: Int[Tensor, "n T"]
    places: Int[Tensor, " B"]
    """Tokens of the flattened batch that have a weight."""
    sums: csr_array
    """From these tokens to the examples."""
    examples: Int[np.ndarray, " n_examples"]


def pooled(
    model: LanguageModel,
    coders: Mapping[str, SparseCoder],
    texts: Sequence[str],
    *,
    how: Pooling = "mean",
    context: int = 128,
) -> Pooled:
    """One example per text: the mean over its content tokens, or the last of them (SAE-Probes).

    A text is cut after ``context`` tokens. Raises ``UserError`` for a text without tokens.
    """
    sequences = token_sequences(model, texts, context)
    return summed(model, coders, sequences, content_sums(model, sequences, how))


@torch.no_grad()
def summed(
    model: LanguageModel,
    coders: Mapping[str, SparseCoder],
    sequences: Sequence[Int[np.ndarray, " _"]],
    wanted: TokenSums,
) -> Pooled:
    """The wanted sums over the tokens of sequences, for several coders in one pass of the model.

    Raises ``UserError`` for a coder that does not fit the model.
    """
    check_coders(model, coders)
    sites = {name: tuple(port.site for port in coder.wiring.reads) for name, coder in coders.items()}
    every_site = list(dict.fromkeys(itertools.chain.from_iterable(sites.values())))
    rows: dict[tuple[str, ...], np.ndarray] = {}
    parts: dict[str, list[csr_array]] = {name: [] for name in coders}
    order: list[np.ndarray] = []
    for group in _groups(model, sequences, wanted):
        captured = model.capture(group.tokens, every_site)
        order.append(group.examples)
        for name, coder in coders.items():
            x_BD = rows_at(coder, captured, coder.wiring.reads, group.places)
            if sites[name] not in rows:
                rows[sites[name]] = np.zeros((wanted.n_examples, x_BD.shape[1]))
            rows[sites[name]][group.examples] = group.sums @ x_BD.cpu().double().numpy()
            parts[name].append(group.sums @ sparse(encoded(coder, captured, group.places)))
    back = np.argsort(np.concatenate(order))
    latents = {name: csr_array(vstack(blocks, format="csr"))[back] for name, blocks in parts.items()}
    return Pooled({name: rows[sites[name]] for name in coders}, latents)


def sparse(codes: Codes) -> csr_array:
    """Codes in double precision, without explicit zeros; indices are short, as scikit-learn wants them."""
    arrays = (codes.values.cpu().double(), codes.latent_ids.int().cpu(), codes.row_offsets.int().cpu())
    matrix = csr_array(tuple(array.numpy() for array in arrays), shape=(codes.n_rows, codes.n_latents))
    matrix.eliminate_zeros()
    return matrix


def token_sequences(model: LanguageModel, texts: Sequence[str], context: int = 128) -> list[Int[np.ndarray, " _"]]:
    """The tokens of each text, with the beginning-of-text token in front where there is one.

    Cut after ``context`` tokens, or after as many as the model was made for, if those are fewer.
    """
    context = min(context, model.max_context or context)
    front = beginning(model)
    if context <= len(front):
        raise UserError(f"context={context} leaves no room for a text")
    found = model.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
    return [np.array([*front, *ids][:context], dtype=np.int64) for ids in found]


def beginning(model: LanguageModel) -> list[int]:
    """The beginning-of-text token, where there is one; raises ``UserError`` for a model without a tokenizer."""
    if model.tokenizer is None:
        raise UserError(f"{model.name} has no tokenizer files, so it cannot read text; add its tokenizer.json")
    bos = model.tokenizer.bos_token_id
    return [] if bos is None else [bos]


def content_sums(model: LanguageModel, sequences: Sequence[Int[np.ndarray, " _"]], how: Pooling) -> TokenSums:
    """One example per sequence, of its tokens that are not special."""
    special = special_ids(model)
    kept = [np.flatnonzero(~np.isin(sequence, special)) for sequence in sequences]
    if empty := [number for number, places in enumerate(kept) if not len(places)]:
        raise UserError(f"text {empty[0]} has no tokens apart from special ones; leave it out")
    if how == "last":
        kept = [places[-1:] for places in kept]
    counts = np.array([len(places) for places in kept], dtype=np.int64)
    texts = np.repeat(np.arange(len(kept)), counts)
    positions = np.concatenate([np.empty(0, dtype=np.int64), *kept])
    return TokenSums(texts, texts, positions, 1 / np.repeat(counts, counts), len(kept))


def single_tokens(texts: Int[np.ndarray, " N"], positions: Int[np.ndarray, " N"]) -> TokenSums:
    """One example per token; ``texts`` ascend."""
    return TokenSums(np.arange(len(texts)), texts, positions, np.ones(len(texts)), len(texts))


def check_coders(model: LanguageModel, coders: Mapping[str, SparseCoder]) -> None:
    """Raise ``UserError`` for coders of another model, of sites that this one lacks, or of another width."""
    if not coders:
        raise UserError("there is no coder to measure; give at least one")
    for name, coder in coders.items():
        if coder.origin is not None and coder.origin.model != model.name:
            raise UserError(f"coder {name!r} was trained on {coder.origin.model}, not on {model.name}; load that model")
        for port in coder.wiring.reads:
            width = model.width(port.site)
            if width != port.width:
                raise UserError(
                    f"coder {name!r} reads rows of width {port.width}, but {port.site} of {model.name} has {width}"
                )


def check_ablatable(coders: Mapping[str, SparseCoder]) -> None:
    """Raise ``UserError`` for coders whose latents cannot be taken out of the row that they were read from."""
    for name, coder in coders.items():
        if coder.wiring.kind != "sae":
            raise UserError(
                f"coder {name!r} is a {coder.wiring.kind}; ablating latents needs a coder that writes the site it reads"
            )
        if coder.wiring.row_norm != "none":
            raise UserError(
                f"coder {name!r} norms each row by {coder.wiring.row_norm}, so a mean of latents does not tell what "
                "they write; measure a coder without"
            )


def _groups(model: LanguageModel, sequences: Sequence[Int[np.ndarray, " _"]], wanted: TokenSums) -> Iterator[_Group]:
    """Texts of like length together, the shortest first, so that little is padded."""
    bounds = np.searchsorted(wanted.texts, np.arange(len(sequences) + 1))
    lengths = np.array([len(sequence) for sequence in sequences])
    order = [int(text) for text in np.argsort(lengths, kind="stable") if bounds[text] < bounds[text + 1]]
    while order:
        n_texts = len(order)
        while n_texts > 1 and n_texts * lengths[order[n_texts - 1]] > _TOKENS_AT_ONCE:
            n_texts = max(1, min(n_texts - 1, _TOKENS_AT_ONCE // int(lengths[order[n_texts - 1]])))
        yield _group(model, sequences, wanted, order[:n_texts], bounds)
        order = order[n_texts:]


def _group(
    model: LanguageModel,
    sequences: Sequence[Int[np.ndarray, " _"]],
    wanted: TokenSums,
    texts: list[int],
    bounds: Int[np.ndarray, " texts_plus_1"],
) -> _Group:
    length = max(len(sequences[text]) for text in texts)
    tokenizer = model.tokenizer
    padding = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
    tokens = np.full((len(texts), length), padding)
    for i, text in enumerate(texts):
        tokens[i, : len(sequences[text])] = sequences[text]
    entries = np.concatenate([np.arange(bounds[text], bounds[text + 1]) for text in texts])
    counts = [bounds[text + 1] - bounds[text] for text in texts]
    flat = np.repeat(np.arange(len(texts)), counts) * length + wanted.positions[entries]
    places, of_place = np.unique(flat, return_inverse=True)
    examples, of_example = np.unique(wanted.examples[entries], return_inverse=True)
    sums = csr_array((wanted.weights[entries], (of_example, of_place)), shape=(len(examples), len(places)))
    return _Group(torch.from_numpy(tokens), torch.from_numpy(places), sums, examples)
