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


def _identity_coder(d_model: int):
    """relu(x) - relu(-x) = x: a real coder that reconstructs exactly."""
    cls = architecture("relu")
    coder = cls(cls.Config(n_latents=2 * d_model), d_model)
    with torch.no_grad():
        both = torch.cat([torch.eye(d_model), -torch.eye(d_model)])
        coder.W_enc.copy_(both)
        coder.W_dec.copy_(both)
    return coder.requires_grad_(False)


def test_the_identity_coder_changes_nothing_at_all(lm: LanguageModel) -> None:
    coder = _identity_coder(lm.width(SITE))
    measured = measure_splicing(lm, SITE, _batches(lm), lambda x: coder.decode(coder.encode(x)), torch.ones(1))
    assert measured.figures["ce_spliced"] == measured.figures["ce_clean"]
    assert measured.figures["kl"] == 0.0
    assert measured.figures["loss_recovered_zero"] == 1.0
    assert measured.figures["loss_recovered_mean"] == 1.0


def test_ablations_equal_a_model_whose_site_is_overwritten(lm: LanguageModel) -> None:
    batches = _batches(lm)
    mean = torch.randn(lm.width(SITE))
    figures = measure_splicing(lm, SITE, batches, torch.zeros_like, mean).figures

    def loss(value: torch.Tensor) -> float:
        """By a plain hook on the block, special positions left alone, all tokens at once."""
        tokens = torch.cat([batch.token_ids for batch in batches])

        def overwrite(_, __, output):
            x = output if isinstance(output, torch.Tensor) else output[0]
            new = torch.where((tokens != 0)[..., None], value.expand_as(x), x)
            return new if isinstance(output, torch.Tensor) else (new, *output[1:])

        blocks = lm.model.model.layers if hasattr(lm.model, "model") else lm.model.transformer.h
        handle = blocks[1].register_forward_hook(overwrite)
        with torch.no_grad():
            logits = lm.model(tokens).logits
        handle.remove()
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).item()

    assert figures["ce_zero_ablated"] == pytest.approx(loss(torch.zeros(1)), rel=1e-6)
    assert figures["ce_spliced"] == figures["ce_zero_ablated"]
    assert figures["ce_mean_ablated"] == pytest.approx(loss(mean), rel=1e-6)
    assert figures["loss_recovered_zero"] == pytest.approx(0.0, abs=1e-12)


def test_ablating_does_damage_on_a_site_that_matters(lm: LanguageModel) -> None:
    figures = measure_splicing(lm, SITE, _batches(lm), torch.zeros_like, torch.zeros(1)).figures
    assert figures["kl"] > 0.01


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
