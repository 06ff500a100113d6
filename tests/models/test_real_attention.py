"""The inside of attention in real models, against what an author stored and what Hugging Face gives."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unweave.models.attention import POINTS, Point, attention_modules, inside_attention
from unweave.models.language_model import LanguageModel

REALDATA = Path(__file__).parents[2] / "../shared/realdata"
SORTER = REALDATA / "toy-nano-sort"
STORYTELLER = REALDATA / "stories260K/hf"
NAMES: dict[Point, str] = {"q": "q", "k": "k", "v": "v", "scores": "att", "pattern": "attSm"}
"""What the author called them."""

needs_sorter = pytest.mark.skipif(
    not SORTER.is_dir(), reason="the real model toy-nano-sort is not beside this repository"
)
needs_storyteller = pytest.mark.skipif(
    not STORYTELLER.is_dir(), reason="the real model stories260K is not beside this repository"
)


def _stored(name: str) -> Tensor:
    entry = json.loads((SORTER / "gpt-nano-sort-t0-partials.json").read_text(encoding="utf-8"))[name]
    dtype = {"torch.int64": "<i8", "torch.float32": "<f4"}[entry.get("dtype", "torch.float32")]
    return torch.from_numpy(np.frombuffer(base64.b64decode(entry["data"]), dtype=dtype).copy()).view(entry["shape"])


def _see(lm: LanguageModel, path: str, tokens: Tensor) -> dict[Point, Tensor]:
    seen: dict[Point, Tensor] = {}

    def keep(point: Point) -> Any:
        return lambda x: seen.update({point: x})

    with inside_attention(lm.model, {(path, point): keep(point) for point in POINTS}):
        lm.logits(tokens)
    return seen


@needs_sorter
@pytest.mark.parametrize("point", POINTS)
def test_attention_is_what_the_author_of_a_model_stored(point: Point) -> None:
    lm, stored = LanguageModel.load(SORTER / "hf"), _stored(NAMES[point])
    seen = _see(lm, "transformer.h.0.attn", _stored("idx").long())[point]
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
    for path, own in zip(attention_modules(lm.model), patterns, strict=True):
        pattern = _see(lm, path, tokens)["pattern"]
        torch.testing.assert_close(pattern, own, rtol=1e-4, atol=2e-6)
        torch.testing.assert_close(pattern.sum(-1), torch.ones(pattern.shape[:-1]))
