"""What capturing one layer costs beside a plain Hugging Face forward pass of a model that ends at that layer.

python -m benchmarks.capture --json rows.json

The model has GPT-2 small's layout (12 blocks of width 768) and random weights. The plain pass is the same blocks, in a
model from which the later ones were taken out; it has no hooks, no cache of keys and values, and no logits. Rounds
alternate between the two, the first of a round changing; a ratio is taken within each round.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unweave.models.language_model import LanguageModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", default="0,5,11", help="layers to capture, with commas")
    parser.add_argument("--shape", default="8,128", help="sequences and context")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    n_sequences, context = map(int, told.shape.split(","))
    model = _gpt2_small(context)
    lm = LanguageModel(model, None, "gpt2-shaped")
    tokens = torch.randint(model.config.vocab_size, (n_sequences, context))
    rows = []
    for layer in map(int, told.layers.split(",")):
        rows += _compare(lm, model, tokens, layer, told.rounds)
    if told.json:
        told.json.write_text(json.dumps(rows, indent=1))


def _gpt2_small(context: int) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_positions=context)).eval()


def _compare(lm: LanguageModel, model: Any, tokens: torch.Tensor, layer: int, rounds: int) -> list[dict[str, Any]]:
    site = f"layers.{layer}.resid_post"
    plain = copy.copy(model.transformer)
    plain._modules = {**model.transformer._modules, "h": nn.ModuleList(list(model.transformer.h)[: layer + 1])}

    @torch.no_grad()
    def forward() -> None:
        plain(input_ids=tokens, use_cache=False)

    def capture() -> None:
        lm.capture(tokens, site)

    forward()
    capture()  # also finds the sites
    times: dict[Callable[[], None], list[float]] = {forward: [], capture: []}
    for number in range(rounds):
        for run in (forward, capture) if number % 2 else (capture, forward):
            start = time.perf_counter()
            run()
            times[run].append(time.perf_counter() - start)
    ratios = sorted(ours / theirs for ours, theirs in zip(times[capture], times[forward], strict=True))
    ratio = statistics.median(ratios)
    n_sequences, context = tokens.shape
    shape = {"layer": layer, "sequences": n_sequences, "context": context, "rounds": rounds}
    print(f"{site}: {ratio:.3f} times the plain pass (lowest {ratios[0]:.3f}, highest {ratios[-1]:.3f})", flush=True)
    return [
        {"library": "transformers", **shape, "seconds": statistics.median(times[forward]), "ratio": 1.0},
        {
            "library": "unweave",
            **shape,
            "seconds": statistics.median(times[capture]),
            "ratio": ratio,
            "lowest": ratios[0],
            "highest": ratios[-1],
        },
    ]


if __name__ == "__main__":
    main()
