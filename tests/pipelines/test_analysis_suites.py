"""Geometry and co-firing as suites: figures of the weights and codes of several coders at once."""

import math
from pathlib import Path

import pytest
import torch

from unweave.coders import SparseCoder
from unweave.evals.controls import identity_coder, random_coder
from unweave.models.language_model import LanguageModel
from unweave.models.tokens import PackingConfig, pack
from unweave.pipelines.analysis_suites import measure_cofiring, measure_geometry
from unweave.storage.run_folder import Run
from unweave.types import Document, TokenBatch


@pytest.fixture(scope="module")
def coders(run: Run) -> dict[str, SparseCoder]:
    wiring = run.coder.wiring
    return {
        "run": run.coder,
        "random": random_coder(wiring, 63, 7.0, torch.zeros(24)),
        "identity": identity_coder(wiring),
    }


@pytest.fixture(scope="module")
def llama(language_models: dict[str, LanguageModel]) -> LanguageModel:
    return language_models["llama"]


@pytest.fixture(scope="module")
def batches(llama: LanguageModel, text_file: Path) -> list[TokenBatch]:
    text = Document("weaver", text_file.read_text()[:3000])
    return list(pack([text], llama, PackingConfig(context=32), 8))


def test_geometry_has_all_coders_with_the_directions_of_the_model(
    llama: LanguageModel, coders: dict[str, SparseCoder]
) -> None:
    found = measure_geometry(llama, coders)
    identity = found["identity"].figures
    assert identity["participation_ratio"] == pytest.approx(1.0), "each latent writes one neuron of the stream"
    assert identity["neighbour_cosine"] == 0.0
    embedding = llama.model.get_input_embeddings().weight
    nearest = (coders["run"].W_dec @ torch.nn.functional.normalize(embedding).T).abs().amax(1)
    expected = (nearest / coders["run"].W_dec.norm(dim=1)).mean().item()
    assert found["run"].figures["embedding_alignment"] == pytest.approx(expected, rel=1e-4)
    assert 0 < found["random"].figures["neuron_alignment"] < 1
    assert found["run"].n == 63 and found["run"].standard_errors == {}


def test_cofiring_is_that_of_the_codes_and_leaves_out_coders_that_are_always_on(
    llama: LanguageModel, coders: dict[str, SparseCoder], batches: list[TokenBatch]
) -> None:
    found = measure_cofiring(llama, coders, batches)
    site = coders["run"].site
    active: list[torch.Tensor] = []
    for batch in batches:
        rows = llama.capture(batch.token_ids, site)[site][batch.is_content]
        active.append(coders["run"].encode(rows).dense() != 0)
    both = (whole := torch.cat(active).double()).T @ whole
    connected = (both > 0).double().mul(1 - torch.eye(63, dtype=torch.float64)).sum() / (63 * 62)
    assert found["run"].figures["co_firing_connectivity"] == pytest.approx(connected.item())
    assert found["run"].n == len(whole)
    assert all(math.isnan(value) for value in found["identity"].figures.values())
