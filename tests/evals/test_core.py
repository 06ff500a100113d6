"""The core evaluation on tiny models, against figures worked out by other means."""

import math

import pytest
import torch
import torch.nn.functional as F

from unweave.activations.harvest import rows_of
from unweave.coders import architecture
from unweave.evals.core import measure_rows, measure_splicing
from unweave.models.language_model import LanguageModel
from unweave.types import Codes, Rows, TokenBatch

SITE = "layers.1.resid_post"


def _batches(model: LanguageModel) -> list[TokenBatch]:
    generator = torch.Generator().manual_seed(5)
    batches = []
    for _ in range(3):
        tokens = torch.randint(1, model.n_vocabulary, (4, 9), generator=generator)
        tokens[:, 0] = 0
        batches.append(TokenBatch(tokens, torch.zeros_like(tokens), tokens != 0))
    return batches


def _ports(model: LanguageModel, *sites: str) -> list[Port]:
    return [Port(site, model.width(site)) for site in sites]


def _exact_coder(wiring: Wiring, read: Tensor, write: Tensor) -> SparseCoder:
    """relu(u) - relu(-u) = u with u = x @ read.T: a real coder that writes ``x @ read.T @ write``."""
    cls = architecture("relu")
    coder = cls(cls.Config(n_latents=2 * len(read), bias_start="zero"), wiring)
    with torch.no_grad():
        coder.W_enc.copy_(torch.cat([read, -read]))
        coder.W_dec.copy_(torch.cat([write, -write]))
    return coder.requires_grad_(False)


def _identity_coder(model: LanguageModel, *sites: str) -> SparseCoder:
    ports = _ports(model, *sites)
    width = sum(port.width for port in ports)
    return _exact_coder(Wiring.crosscoder(*ports), torch.eye(width), torch.eye(width))


def _zero_coder(wiring: Wiring) -> SparseCoder:
    return _exact_coder(wiring, torch.zeros(1, wiring.d_read), torch.zeros(1, wiring.d_write))


def _loss(model: LanguageModel, overwrite: Callable[[nn.Module, Tensor], Callable], tokens: Tensor) -> float:
    """The loss where plain hooks, which ``overwrite`` gives for each block, change what blocks put out."""
    blocks = model.model.model.layers if hasattr(model.model, "model") else model.model.transformer.h
    handles = [blocks[int(site)].register_forward_hook(hook) for site, hook in overwrite.items()]
    with torch.no_grad():
        logits = model.model(tokens).logits
    for handle in handles:
        handle.remove()
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).item()


def test_row_figures_are_those_of_all_rows_together(gpt2: LanguageModel) -> None:
    batches = _batches(gpt2)
    d_model = gpt2.width(SITE)
    cls = architecture("relu")
    coder = cls(cls.Config(n_latents=63), d_model).requires_grad_(False)
    rows = [rows_of(batch, gpt2.capture(batch.token_ids, SITE)) for batch in batches]
    seen: list[tuple[TokenBatch, Rows, Codes]] = []
    result = measure_rows(coder, SITE, zip(batches, rows, strict=True), lambda *seen_now: seen.append(seen_now))
    x = torch.cat([batch.activations[SITE] for batch in rows])
    dense = F.relu((x - coder.b_dec) @ coder.W_enc.T + coder.b_enc)
    error = x - (dense @ coder.W_dec + coder.b_dec)
    figures = result.measured.figures
    assert result.n_rows == 96
    assert figures["l0"] == pytest.approx((dense > 0).sum().item() / 96)
    assert figures["mse"] == pytest.approx(error.square().sum(1).mean().item(), rel=1e-5)
    expected = 1 - (error.square().sum() / (x - x.mean(0)).square().sum()).item()
    assert figures["explained_variance"] == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(result.mean_D, x.mean(0), rtol=1e-5, atol=1e-6)
    assert [len(rows) for _, rows, _ in seen] == [32, 32, 32]
    assert all(math.isfinite(error) for error in result.measured.standard_errors.values())
