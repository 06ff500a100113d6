"""Description length against entropies worked out by hand, and bins against decoding."""

import math

import numpy as np
import pytest
import torch

from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.evals.controls import random_coder
from unweave.evals.mdl import DEFINITIONS, Entries, binned, mdl_figures, measure_mdl
from unweave.metrics.base import N_BLOCKS
from unweave.models.language_model import LanguageModel
from unweave.models.tokens import PackingConfig, pack
from unweave.types import Codes, Document


def _entries(latents: list[int], values: list[float], n_tokens: int, error: float) -> Entries:
    tokens = np.zeros(N_BLOCKS)
    tokens[:2] = n_tokens / 2
    blocks = np.arange(len(latents)) % 2
    return Entries(np.array(latents), np.array(values), blocks, tokens, error)


def _entropy(*shares: float) -> float:
    return -sum(share * math.log2(share) for share in shares if share)


def test_bits_by_hand() -> None:
    """Of 16 tokens latent 0 has 4, three of them in the upper of two bins; latent 1 has 8, in one bin."""
    entries = _entries([0] * 4 + [1] * 8, [1.0, 4.0, 3.9, 3.0] + [2.0] * 8, 16, 100.0)
    found = mdl_figures(entries, np.array([1.0, 0.0]), tolerance=0.005).figures
    assert found["mdl_bins"] == 2
    assert found["mdl_bits_which"] == pytest.approx(_entropy(0.25, 0.75) + _entropy(0.5, 0.5))
    assert found["mdl_bits_values"] == pytest.approx(0.25 * _entropy(0.25, 0.75))
    assert found["mdl_bits"] == pytest.approx(found["mdl_bits_which"] + found["mdl_bits_values"])
    assert set(found) == {definition.name for definition in DEFINITIONS}


def test_values_fall_into_bins_whose_centres_stand_for_them() -> None:
    """Latent 0 from 0 to 4 in four bins of 1; latent 1 from -2 to 2."""
    entries = _entries([0, 0, 0, 1, 1], [4.0, 0.5, 1.0, -2.0, 2.0], 10, 1.0)
    bins = binned(entries, np.array([1.0, 9.0]), 4)
    assert bins.of_entries.tolist() == [3, 0, 1, 0, 3]
    assert bins.added_error == pytest.approx((0.25 + 0 + 0.25 + 9 * 0.25 + 9 * 0.25) / 10)


def test_bins_are_as_coarse_as_the_error_allows() -> None:
    entries = _entries([0] * 100, list(np.linspace(0.01, 1, 100)), 100, 1.0)
    sizes = [
        mdl_figures(entries, np.ones(1), tolerance=share).figures["mdl_bins"] for share in (1.0, 0.022, 0.001, 1e-9)
    ]
    assert sizes == [1, 2, 16, 256]


def test_the_error_is_that_of_leaving_out_blocks() -> None:
    generator = np.random.default_rng(7)
    latents, values = generator.integers(0, 5, 600), generator.random(600)
    blocks = generator.integers(0, 3, 600)
    tokens = np.zeros(N_BLOCKS)
    tokens[:3] = [100, 150, 200]
    measured = mdl_figures(Entries(latents, values, blocks, tokens, 5.0), np.ones(5))
    n_bins = int(measured.figures["mdl_bins"])
    of_all = binned(Entries(latents, values, blocks, tokens, 5.0), np.ones(5), n_bins).of_entries
    left = []
    for block in range(3):
        kept = blocks != block
        n = tokens.sum() - tokens[block]
        counts = np.zeros((5, n_bins))
        np.add.at(counts, (latents[kept], of_all[kept]), 1)
        left.append(sum(
            _entropy(row.sum() / n, 1 - row.sum() / n) + row.sum() / n * _entropy(*(row / row.sum())) for row in counts
        ))  # fmt: skip
    assert measured.standard_errors["mdl_bits"] == pytest.approx(math.sqrt(2 * np.var(left)), rel=1e-6)


def test_bins_add_the_error_that_decoding_them_adds(
    pylm: LanguageModel, small_coder: SparseCoder, documents: list[Document]
) -> None:
    """Products of the errors of different latents are left away, and are small on text."""
    batches = list(pack(documents[:3], pylm, PackingConfig(context=128), 4))[:2]
    coders = {"small": small_coder, "random": random_coder(small_coder.wiring, 63, 7.0, small_coder.b_dec)}
    found = measure_mdl(pylm, coders, batches)
    assert found["small"].n == sum(int(batch.is_content.sum()) for batch in batches)
    x = torch.cat(
        [pylm.capture(batch.token_ids, small_coder.site)[small_coder.site][batch.is_content] for batch in batches]
    )
    codes = small_coder.encode(x)
    exact = small_coder(x)
    assert found["small"].details["squared_error"] == pytest.approx((x - exact).square().sum(1).mean().item(), rel=1e-4)
    entries = Entries(
        codes.latent_ids.numpy(), codes.values.double().numpy(), np.zeros(1), np.array([float(len(x))]), 1.0
    )
    n_bins = 8
    bins = binned(entries, small_coder.W_dec.double().square().sum(1).numpy(), n_bins)
    top = torch.zeros(63).scatter_reduce(0, codes.latent_ids, codes.values, "amax")
    centres = (torch.from_numpy(bins.of_entries) + 0.5) / n_bins * top[codes.latent_ids]
    coarse = small_coder.decode(Codes(centres.float(), codes.latent_ids, codes.row_offsets, 63))
    assert (coarse - exact).square().sum(1).mean().item() == pytest.approx(bins.added_error, rel=0.3)


def test_a_text_without_tokens_is_told(pylm: LanguageModel, small_coder: SparseCoder) -> None:
    with pytest.raises(UserError, match="the text has no tokens to describe"):
        measure_mdl(pylm, {"small": small_coder}, [])
    with pytest.raises(UserError, match="share of more than 0"):
        measure_mdl(pylm, {"small": small_coder}, [], tolerance=0.0)
