"""The inside of attention in real models, against what an author stored and what Hugging Face gives."""

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
NAMES = {"q": "q", "k": "k", "v": "v", "scores": "att", "pattern": "attSm"}
"""What the author called them."""

needs_sorter = pytest.mark.skipif(
    not SORTER.is_dir(), reason="the real model toy-nano-sort is not beside this repository"
)
needs_storyteller = pytest.mark.skipif(
    not STORYTELLER.is_dir(), reason="the real model stories260K is not beside this repository"
)


def _stored(name: str) -> Tensor:
    entry = json.loads((SORTER / "gpt-nano-sort-t0-partials.json").read_text(encoding="utf-8"))[name]
    flat = np.frombuffer(base64.b64decode(entry["data"]), dtype="<f4")
    return torch.from_numpy(flat.copy()).view(entry["shape"])


@needs_sorter
@pytest.mark.parametrize(("point", "name"), NAMES.items())
def test_attention_is_what_the_author_of_a_model_stored(point: str, name: str) -> None:
    lm, stored = LanguageModel.load(SORTER / "hf"), _stored(name)
    (seen,) = lm.capture(_stored("idx").long(), f"layers.0.attn.{point}").values()
    if point in ("q", "k", "v"):
        seen = seen.unflatten(-1, (3, 16)).transpose(1, 2)
    hidden = stored == -torch.inf
    assert (seen[hidden] < -1e38).all()
    torch.testing.assert_close(seen[~hidden], stored[~hidden], rtol=0, atol=3e-6)


@needs_storyteller
def test_patterns_of_a_real_llama_are_those_of_its_eager_attention() -> None:
    lm = LanguageModel.load(STORYTELLER)
    tokens = lm.tokens("Once upon a time, there was a little girl named Lily. She loved to play with yarn.")
    eager = LanguageModel.load(STORYTELLER)
    eager.model.set_attn_implementation("eager")
    with torch.no_grad():
        patterns = eager.model(input_ids=tokens, output_attentions=True, use_cache=False).attentions
    seen = lm.capture(tokens, [f"blocks.{layer}.attn.hook_pattern" for layer in range(lm.sites.n_layers)])
    for pattern, own in zip(seen.values(), patterns, strict=True):
        torch.testing.assert_close(pattern, own, rtol=1e-4, atol=2e-6)
        torch.testing.assert_close(pattern.sum(-1), torch.ones(pattern.shape[:-1]))
