"""Losses with groups of latents added to a small coder, against splicing and cross-entropy written out by hand."""

import pytest
import torch
import torch.nn.functional as F

from unweave.analysis.stitched_loss import DEFINITIONS, VARIANTS, StitchedLoss, stitched_losses
from unweave.coders import SparseCoder, Wiring
from unweave.coders.topk import TopK, TopKConfig
from unweave.metrics import NextTokens, ReplacedLosses
from unweave.models.language_model import LanguageModel
from unweave.types import TokenBatch

SITE = "layers.1.resid_post"


def coder(n_latents: int, width: int) -> SparseCoder:
    made = TopK(TopKConfig(n_latents=n_latents, k=5, centre=True), Wiring.sae(width, SITE))
    with torch.no_grad():
        made.b_dec.copy_(torch.randn(width))
        made.b_enc.copy_(torch.rand(n_latents))
    return made.eval().requires_grad_(False)


@torch.no_grad()
def test_each_variant_is_spliced_as_written_out(gpt2: LanguageModel, tokens: torch.Tensor) -> None:
    small, large = coder(11, 28), coder(30, 28)
    is_content = torch.ones(tokens.shape, dtype=torch.bool)
    is_content[:, 0] = False
    batch = TokenBatch(tokens, torch.arange(2)[:, None].expand_as(tokens), is_content)
    is_novel = torch.rand(30) < 0.4
    found = stitched_losses(gpt2, batch, small, large, is_novel)
    x = gpt2.capture(tokens, SITE)[SITE]
    codes = large.encode(x.flatten(0, 1)).dense()
    base = small(x.flatten(0, 1))
    written = {
        "small": base,
        "large": codes @ large.W_dec + large.b_dec,
        "novel": base + (codes * is_novel) @ large.W_dec,
        "reconstruction": base + (codes * ~is_novel) @ large.W_dec,
    }
    losses = NextTokens(tokens, gpt2.logits(tokens), None)
    for name in VARIANTS:
        spliced = torch.where(is_content[..., None], written[name].view_as(x), x)
        with gpt2.patch({SITE: lambda _, spliced=spliced: spliced}):
            (expected,) = losses.losses(gpt2.logits(tokens))
        torch.testing.assert_close(found.replaced[name], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.ce_clean, losses.ce)
    assert found.blocks.tolist() == [0] * (tokens.shape[1] - 1) + [1] * (tokens.shape[1] - 1)


def test_figures_are_differences_of_means_over_predicted_tokens() -> None:
    tokens, logits = torch.randint(13, (3, 7)), {name: torch.randn(3, 7, 13) for name in ("clean", *VARIANTS)}
    is_padding = torch.zeros(3, 7, dtype=torch.bool)
    is_padding[2, 4:] = True
    blocks = torch.tensor([0, 5, 9])[:, None].expand(3, 7)
    metric = StitchedLoss()
    clean = logits.pop("clean")
    for rows in (slice(0, 1), slice(1, 3)):
        next_tokens = NextTokens(tokens[rows], clean[rows], is_padding[rows])
        replaced = {name: next_tokens.losses(values[rows])[0] for name, values in logits.items()}
        metric.update(ReplacedLosses(blocks[rows][next_tokens.is_predicted], next_tokens.ce, replaced))
    is_predicted = ~is_padding[:, 1:]

    def ce(values: torch.Tensor) -> float:
        return F.cross_entropy(values[:, :-1][is_predicted], tokens[:, 1:][is_predicted]).item()

    def kl(values: torch.Tensor) -> float:
        logs, target = (v[:, :-1][is_predicted].log_softmax(-1) for v in (values, clean))
        return F.kl_div(logs, target, log_target=True, reduction="batchmean").item()

    figures, errors = metric.compute(), metric.standard_errors()
    assert list(figures) == [definition.name for definition in DEFINITIONS] and set(errors) == set(figures)
    for name in ("novel", "reconstruction"):
        assert figures[f"stitched_ce_{name}"] == pytest.approx(ce(logits[name]) - ce(logits["small"]), abs=1e-5)
        assert figures[f"stitched_kl_{name}"] == pytest.approx(kl(logits[name]) - kl(logits["small"]), abs=1e-5)
    for name in ("small", "large"):
        assert figures[f"stitched_ce_{name}"] == pytest.approx(ce(logits[name]) - ce(clean), abs=1e-5)
        assert figures[f"stitched_kl_{name}"] == pytest.approx(kl(logits[name]), abs=1e-5)
