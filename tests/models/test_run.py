"""A whole pass: logits and what lies on the way, with gradients through the edits of a patch and nowhere else."""

import copy

import pytest
import torch
from torch import Tensor

from unweave.errors import UserError
from unweave.models.language_model import LanguageModel

POINTS = ["resid_pre", "resid_mid", "resid_post", "attn_out", "attn.z", "mlp_in", "mlp.post", "mlp_out"]


def test_it_gives_the_logits_and_what_capture_gives(lm: LanguageModel, tokens: Tensor) -> None:
    sites = ["blocks.1.hook_resid_mid", "layers.2.resid_post", "layers.0.attn.z"]
    seen = lm.run(tokens, sites)
    captured = lm.capture(tokens, sites)
    assert torch.equal(seen.logits, lm.logits(tokens))
    assert list(seen.activations) == sites
    assert all(torch.equal(seen.activations[site], captured[site]) for site in sites)


def test_what_lies_behind_a_patch_is_seen_edited(lm: LanguageModel, tokens: Tensor) -> None:
    with lm.patch({"layers.1.resid_mid": lambda x: x + 1.0}):
        edited = lm.run(tokens, ["layers.0.resid_post", "layers.1.resid_post"]).activations
    clean = lm.run(tokens, ["layers.0.resid_post", "layers.1.resid_post"]).activations
    assert torch.equal(edited["layers.0.resid_post"], clean["layers.0.resid_post"])
    assert (edited["layers.1.resid_post"] - clean["layers.1.resid_post"]).abs().max() > 0.5


@pytest.mark.parametrize("point", POINTS)
def test_the_gradient_of_an_edit_is_its_slope(lm: LanguageModel, tokens: Tensor, point: str) -> None:
    model = LanguageModel(copy.deepcopy(lm.model).double(), lm.tokenizer, lm.name)
    site = f"layers.1.{point}"
    width = model.width(site)
    weights, direction = torch.randn(2, 9, model.n_vocabulary).double(), torch.randn(2, 9, width).double()
    delta = torch.zeros(2, 9, width, dtype=torch.float64, requires_grad=True)

    def outcome(delta: Tensor) -> Tensor:
        with model.patch({site: lambda x: 0.7 * x + delta}):
            return (model.run(tokens).logits * weights).sum()

    outcome(delta).backward()
    assert delta.grad is not None
    with torch.no_grad():
        slope = (outcome(1e-3 * direction) - outcome(-1e-3 * direction)) / 2e-3
    # two of the families round to float32 on the way, so the slope is no better than that
    torch.testing.assert_close((delta.grad * direction).sum(), slope, rtol=2e-3, atol=0)
    assert all(parameter.grad is None for parameter in model.model.parameters())


def test_nothing_in_front_of_an_edit_has_a_graph(lm: LanguageModel, tokens: Tensor) -> None:
    sites = lm.sites.names()
    delta = torch.zeros(lm.width("layers.1.resid_mid"), requires_grad=True)
    with lm.patch({"layers.1.resid_mid": lambda x: x + delta}):
        seen = lm.run(tokens, sites)
    first = sites.index("layers.1.resid_mid")
    assert [seen.activations[site].requires_grad for site in sites] == [i >= first for i in range(len(sites))]
    assert seen.logits.requires_grad
    assert not lm.run(tokens).logits.requires_grad


def test_a_module_that_never_runs_is_an_error(lm: LanguageModel, tokens: Tensor) -> None:
    blocks = lm.sites.resolve("layers.0.resid_pre").module.removesuffix(".0")
    with pytest.raises(UserError, match=rf"never reached {blocks}; did you mean"):
        lm.run(tokens, [blocks, "layers.1.resid_post"])
