"""Description length: how many bits a token costs once it is told by its latents (Ayonrinde et al. 2024, 2410.11179).

With p_i the share of tokens on which latent i is active, and its values put into B bins of equal width between the
least (or 0) and the largest that were seen:

    bits      sum_i [ H2(p_i) + p_i H(bins of f_i | active) ]      H2(p) = -p log2 p - (1 - p) log2(1 - p)
    B         the smallest power of 2 with which the squared error grows by at most a hundredth

The error that bins add is sum (v - centre)^2 |d_i|^2 / tokens: bins of one latent know nothing of other latents, nor of
what the coder leaves out, so products of their errors are left away. Entropies are those of the tokens that were seen,
which is too low for latents that fired but a few times; compare at the same number of tokens. A coder that writes
little costs few bits: read beside explained variance.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from unweave.activations.coded import coded, side_by_side
from unweave.activations.harvest import rows_of
from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.evals.measured import Measured, Weightings
from unweave.evals.pooled import check_coders
from unweave.metrics.base import N_BLOCKS, Definition
from unweave.models.language_model import LanguageModel
from unweave.types import TokenBatch

DEFINITIONS = (
    Definition(
        "mdl_bits",
        "Description length",
        "Bits that tell which latents are active on a token and how strongly, as coarsely as the error allows.",
        "low at equal explained variance",
    ),
    Definition(
        "mdl_bits_which",
        "Bits for which latents",
        "The part of the description length that tells which latents are active.",
        "most of the description length",
    ),
    Definition(
        "mdl_bits_values",
        "Bits for values",
        "The part of the description length that tells how strongly latents are active.",
        "a few per active latent",
    ),
    Definition(
        "mdl_bins",
        "Bins of a value",
        "Number of bins of a latent's values, the smallest power of two that leaves the error nearly as it is.",
        "4 to 32",
    ),
)
_LARGEST = 256
_TOLERANCE = 0.01


class Entries(NamedTuple):
    """All active latents of all tokens, and what the tokens were left with."""

    latents: Int[np.ndarray, " E"]
    values: Float[np.ndarray, " E"]
    blocks: Int[np.ndarray, " E"]
    """The block of documents of each entry."""
    tokens: Float[np.ndarray, " 64"]
    """Tokens of each block."""
    squared_error: float
    """Of the coder, mean over tokens."""


class Bins(NamedTuple):
    """The bin of each entry, and the mean squared error that the bins add."""

    of_entries: Int[np.ndarray, " E"]
    n_bins: int
    added_error: float


@torch.no_grad()
def measure_mdl(
    model: LanguageModel,
    coders: Mapping[str, SparseCoder],
    batches: Iterable[TokenBatch],
    *,
    tolerance: float = _TOLERANCE,
) -> dict[str, Measured]:
    """The figures of several coders on packed text; ``tolerance`` is the share by which the error may grow."""
    if not tolerance > 0:
        raise UserError(f"the error may grow by a share of more than 0, got tolerance={tolerance}")
    check_coders(model, coders)
    ports = [port for coder in coders.values() for port in coder.wiring.reads + coder.wiring.writes]
    sites = list(dict.fromkeys(port.site for port in ports))
    parts: dict[str, list[Entries]] = {name: [] for name in coders}
    for batch in batches:
        captured = model.capture(batch.token_ids, sites)
        rows = rows_of(batch, captured)
        places = rows.sequences * batch.token_ids.shape[1] + rows.positions
        blocks_B = rows.document_ids.numpy() % N_BLOCKS
        for name, coder in coders.items():
            y = side_by_side(coder, rows.activations, coder.wiring.writes)
            codes, y_hat = coded(coder, captured, places)
            codes = codes.where(codes.values != 0)
            arrays = (codes.latent_ids.cpu(), codes.values.cpu().double(), codes.row_ids.cpu())
            latents, values, of_rows = (array.numpy() for array in arrays)
            tokens = np.bincount(blocks_B, minlength=N_BLOCKS).astype(np.float64)
            error = float((y - y_hat).cpu().double().square().sum())
            parts[name].append(Entries(latents, values, blocks_B[of_rows], tokens, error))
    if not any(part.tokens.sum() for of_coder in parts.values() for part in of_coder):
        raise UserError("the text has no tokens to describe; give more of it")
    return {
        name: mdl_figures(_joined(parts[name]), _squared_norms(coder), tolerance=tolerance)
        for name, coder in coders.items()
    }


def mdl_figures(entries: Entries, norms_L: Float[np.ndarray, " L"], *, tolerance: float = _TOLERANCE) -> Measured:
    """The figures of one coder; ``norms_L`` are the squared lengths of its decoder rows."""
    n_latents, n_tokens = len(norms_L), entries.tokens.sum()
    bins = _coarsest(entries, norms_L, tolerance)
    cells = entries.latents * bins.n_bins + bins.of_entries
    total = np.bincount(cells, minlength=n_latents * bins.n_bins)
    weightings = Weightings(entries.tokens > 0)
    found = [_bits(total.reshape(n_latents, -1), n_tokens)]
    order = np.argsort(entries.blocks, kind="stable")
    bounds = np.searchsorted(entries.blocks[order], np.arange(N_BLOCKS + 1))
    for block in np.flatnonzero(weightings.used):
        own = np.bincount(cells[order[bounds[block] : bounds[block + 1]]], minlength=len(total))
        found.append(_bits((total - own).reshape(n_latents, -1), n_tokens - entries.tokens[block]))
    which_R, values_R = np.array(found).T
    figures = {
        "mdl_bits": which_R + values_R,
        "mdl_bits_which": which_R,
        "mdl_bits_values": values_R,
        "mdl_bins": np.full(len(found), float(bins.n_bins)),
    }
    details = {"squared_error": entries.squared_error, "added_error": bins.added_error}
    return weightings.measured(figures, int(n_tokens), details)


def binned(entries: Entries, norms_L: Float[np.ndarray, " L"], n_bins: int) -> Bins:
    """Values in bins of equal width; each stands for all values in it by its centre."""
    low_L, high_L = np.zeros(len(norms_L)), np.zeros(len(norms_L))
    np.minimum.at(low_L, entries.latents, entries.values)
    np.maximum.at(high_L, entries.latents, entries.values)
    low, width = low_L[entries.latents], ((high_L - low_L) / n_bins)[entries.latents]
    of_entries = np.minimum(((entries.values - low) / width).astype(np.int64), n_bins - 1)
    centres = low + (of_entries + 0.5) * width
    added = float(((entries.values - centres) ** 2 * norms_L[entries.latents]).sum() / entries.tokens.sum())
    return Bins(of_entries, n_bins, added)


def _coarsest(entries: Entries, norms_L: Float[np.ndarray, " L"], tolerance: float) -> Bins:
    """The fewest bins that keep the error; the most there are where none do."""
    n_bins = 1
    bins = binned(entries, norms_L, n_bins)
    while bins.added_error > tolerance * entries.squared_error and n_bins < _LARGEST:
        n_bins *= 2
        bins = binned(entries, norms_L, n_bins)
    return bins


def _bits(counts_LB: Int[np.ndarray, "L B"], n_tokens: float) -> tuple[float, float]:
    """Bits a token for which latents are active, and for their values; NaN without tokens."""
    if n_tokens == 0:
        return math.nan, math.nan
    fires_L = counts_LB.sum(1)
    silent_L = n_tokens - fires_L
    which = n_tokens * np.log2(n_tokens) * len(fires_L) - _plogp(fires_L).sum() - _plogp(silent_L).sum()
    values = _plogp(fires_L).sum() - _plogp(counts_LB).sum()
    return float(which / n_tokens), float(values / n_tokens)


def _plogp(counts: np.ndarray) -> np.ndarray:
    """n log2 n, 0 at 0."""
    return counts * np.log2(np.maximum(counts, 1))


def _squared_norms(coder: SparseCoder) -> Float[np.ndarray, " L"]:
    return coder.W_dec.detach().double().square().sum(1).cpu().numpy()


def _joined(parts: list[Entries]) -> Entries:
    latents, values, blocks = (np.concatenate([part[i] for part in parts]) for i in range(3))
    tokens = np.sum([part.tokens for part in parts], axis=0)
    return Entries(latents, values, blocks, tokens, float(sum(part.squared_error for part in parts) / tokens.sum()))
