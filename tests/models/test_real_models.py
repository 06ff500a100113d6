"""Captured activations against those that the authors of real models stored, and against Hugging Face."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from unweave.models.language_model import LanguageModel

REALDATA = Path(__file__).parents[2] / "../shared/realdata"
SORTER = REALDATA / "toy-nano-sort"
STORYTELLER = REALDATA / "stories260K/hf"

needs_sorter = pytest.mark.skipif(
    not SORTER.is_dir(), reason="the real model toy-nano-sort is not beside this repository"
)
needs_storyteller = pytest.mark.skipif(
    not STORYTELLER.is_dir(), reason="the real model stories260K is not beside this repository"
)


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    """The author's own activations of three sequences of eleven digits, by his names."""
    content = json.loads((SORTER / "gpt-nano-sort-t0-partials.json").read_text(encoding="utf-8"))
    tensors = {}
    for name, entry in content.items():
        if "data" in entry:
            flat = np.frombuffer(base64.b64decode(entry["data"]), dtype="<f4")
            tensors[name] = torch.from_numpy(flat.copy()).view(entry["shape"])
    return tensors


@needs_sorter
@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("x", "layers.0.resid_pre"),
        ("ln1", "transformer.h.0.ln_1"),
        ("qkv", "transformer.h.0.attn.c_attn"),
        ("y", "layers.0.attn.z"),
        ("yProj", "layers.0.attn_out"),
        ("attnResid", "layers.0.resid_mid"),
        ("ln2", "layers.0.mlp_in"),
        ("fc", "transformer.h.0.mlp.c_fc"),
        ("gelu", "layers.0.mlp.post"),
        ("mlp", "layers.0.mlp_out"),
        ("mlpResid", "layers.0.resid_post"),
        ("block0", "layers.0.resid_post"),
        ("block0", "layers.1.resid_pre"),
        ("block1", "layers.1.resid_post"),
        ("block2", "blocks.2.hook_resid_post"),
        ("ln_f", "transformer.ln_f"),
        ("lm_head", "lm_head"),
    ],
)
def test_captured_activations_are_those_that_the_author_of_a_model_stored(
    stored: dict[str, Tensor], name: str, site: str
) -> None:
    lm = LanguageModel.load(SORTER / "hf")
    (captured,) = lm.capture(stored["idx"].long(), [site]).values()
    torch.testing.assert_close(captured, stored[name], rtol=0, atol=2e-6)


@needs_sorter
def test_probabilities_are_those_that_the_author_of_a_model_stored(stored: dict[str, Tensor]) -> None:
    lm = LanguageModel.load(SORTER / "hf")
    probabilities = lm.logits(stored["idx"].long()).softmax(-1)
    torch.testing.assert_close(probabilities, stored["probs"], rtol=0, atol=2e-6)
    assert lm.tokenizer is None


@needs_storyteller
def test_hidden_states_of_a_real_llama_are_captured_exactly() -> None:
    lm = LanguageModel.load(STORYTELLER)
    text = "Once upon a time, there was a little girl named Lily. She loved to play with yarn."
    tokens = torch.tensor([lm.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        states = lm.model(input_ids=tokens, output_hidden_states=True, use_cache=False).hidden_states
    n_layers = lm.sites.n_layers
    captured = lm.capture(tokens, lm.sites.names())
    for layer in range(n_layers):
        assert torch.equal(captured[f"layers.{layer}.resid_pre"], states[layer])
        mid = captured[f"layers.{layer}.resid_pre"] + captured[f"layers.{layer}.attn_out"]
        assert torch.equal(captured[f"layers.{layer}.resid_mid"], mid)
        assert torch.equal(captured[f"layers.{layer}.resid_post"], mid + captured[f"layers.{layer}.mlp_out"])
    norm = lm.sites.final_norm()
    assert norm is not None
    assert torch.equal(norm(captured[f"layers.{n_layers - 1}.resid_post"]), states[n_layers])


@needs_storyteller
def test_a_real_llama_tells_a_story() -> None:
    """The model is read correctly: it is far less surprised by a story than by the same words backwards."""
    lm = LanguageModel.load(STORYTELLER)
    story = "Once upon a time, there was a little girl named Lily. She loved to play outside."
    losses = []
    for text in (story, " ".join(reversed(story.split()))):
        tokens = torch.tensor([lm.tokenizer(text)["input_ids"]])
        losses.append(torch.nn.functional.cross_entropy(lm.logits(tokens)[0, :-1], tokens[0, 1:]).item())
    assert losses[0] < 2 < losses[1]
