"""Passes that begin behind a prefix have the bits of whole passes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.models.families import FAMILIES, tiny
from unweave.models.inputs import random_inputs
from unweave.models.language_model import LanguageModel
from unweave.models.prefix import after_prefix, keeping_prefix

CAUSAL = tuple(family for family in FAMILIES if family not in ("vit", "dinov2"))


def _counted(model: LanguageModel) -> tuple[list[str], Callable[[], None]]:
    """The blocks that really run."""
    ran: list[str] = []
    handles = []
    for block in model.sites.layout.blocks:
        path = block["resid_pre"].module
        leaves = [module for module in model.model.get_submodule(path).modules() if not list(module.children())]
        handles.append(leaves[0].register_forward_hook(lambda *_, path=path: ran.append(path)))
    return ran, lambda: [handle.remove() for handle in handles] and None


@pytest.mark.parametrize("family", CAUSAL)
def test_edits_behind_a_prefix_give_the_same_bits(family: str) -> None:
    model = tiny(family)
    tokens = random_inputs(model.model, 9, torch.Generator().manual_seed(3))
    site = "layers.1.mlp_out"
    edits = {site: lambda x: 0.5 * x}
    with keeping_prefix(model, [site]) as prefix:
        clean = model.run(tokens).logits
    with model.patch(edits):
        whole = model.logits(tokens)
        with after_prefix(model, prefix):
            again = model.logits(tokens)
    assert prefix[0].blocks == (model.sites.layout.blocks[0]["resid_pre"].module,)
    assert torch.equal(whole, again)
    assert not torch.equal(clean, again)
    assert torch.equal(model.logits(tokens), clean), "nothing is left behind"


def test_blocks_of_the_prefix_do_not_run(gpt2: LanguageModel, tokens: Tensor) -> None:
    with keeping_prefix(gpt2, ["layers.1.resid_post"]) as prefix:
        gpt2.logits(tokens)
    ran, stop = _counted(gpt2)
    with gpt2.patch({"layers.1.resid_post": torch.zeros_like}), after_prefix(gpt2, prefix):
        gpt2.logits(tokens)
    stop()
    assert ran == ["transformer.h.2"], "the end of a block is edited without running it"


@pytest.mark.parametrize("sites", [["layers.0.mlp_out"], ["layers.2.mlp_out", "embed"], ["transformer.h.2.mlp"], []])
def test_where_nothing_can_be_left_out_the_whole_model_runs(
    gpt2: LanguageModel, tokens: Tensor, sites: list[str]
) -> None:
    with keeping_prefix(gpt2, sites) as prefix:
        clean = gpt2.logits(tokens)
    assert prefix == []
    with after_prefix(gpt2, prefix):
        assert torch.equal(gpt2.logits(tokens), clean)


def test_the_models_own_forward_is_put_back_after_an_error(gpt2: LanguageModel, tokens: Tensor) -> None:
    with keeping_prefix(gpt2, ["layers.2.resid_post"]) as prefix:
        clean = gpt2.logits(tokens)
    with pytest.raises(ZeroDivisionError), after_prefix(gpt2, prefix):
        raise ZeroDivisionError
    assert torch.equal(gpt2.logits(tokens), clean)
    assert not any("forward" in module.__dict__ for module in gpt2.model.modules())
