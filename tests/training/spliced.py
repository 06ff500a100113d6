"""What tests of end-to-end training share: a tiny GPT-2 in float64, batches of its text, and the same model unrolled.

``unrolled`` runs the blocks one by one, without hooks, so that what is spliced in can be seen on the page.
"""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.training import runs
from unweave.activations.sequences import CONTENT, TOKENS
from unweave.coders import Port, SparseCoder, Wiring
from unweave.models.language_model import LanguageModel
from unweave.training.config import TrainingConfig
from unweave.training.end_to_end import Spliced, clean_passes
from unweave.training.loop import new_trainee
from unweave.training.objective import Batch, ObjectiveConfig
from unweave.training.trainee import Trainee

WIDTH, N, T = 28, 5, 9
CONFIG = TrainingConfig(rows=10 * N * T, batch=N * T, buffer=2 * N * T, lr=1e-2, log_every=1)
SITES = {
    "sae": Wiring.sae(WIDTH, "layers.1.resid_post"),
    "stream": Wiring.sae(WIDTH, "layers.1.resid_mid"),
    "first": Wiring.sae(WIDTH, "layers.0.resid_pre"),
    "transcoder": Wiring.transcoder(Port("layers.1.mlp_in", WIDTH), Port("layers.1.mlp_out", WIDTH)),
    "skip_transcoder": Wiring.transcoder(Port("layers.0.resid_mid", WIDTH), Port("layers.1.mlp_out", WIDTH), skip=True),
    "crosscoder": Wiring.crosscoder(
        Port("layers.0.resid_post", WIDTH), Port("layers.1.resid_mid", WIDTH), Port("layers.1.mlp_out", WIDTH)
    ),
}


def double(model: LanguageModel) -> LanguageModel:
    return LanguageModel(copy.deepcopy(model.model).double(), model.tokenizer, model.name)


def tokens(model: LanguageModel, seed: int = 63, n: int = N) -> Batch:
    """Random text, of which some places are no content: other ones in every sequence, and not as many."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(model.n_vocabulary, (n, T), generator=generator)
    is_content = torch.rand(n, T, generator=generator) < torch.linspace(0.4, 1.0, n)[:, None]
    is_content[:, 0], is_content[:, 3] = False, True
    return {TOKENS: ids, CONTENT: is_content}


class Case(NamedTuple):
    trainee: Trainee
    batch: Batch


def case(
    model: LanguageModel,
    wiring: Wiring,
    objective: ObjectiveConfig,
    name: str = "relu",
    config: TrainingConfig = CONFIG,
    start: SparseCoder | None = None,
    **settings: Any,
) -> Case:
    """A coder in training on the model, and the batch that its scalings were estimated on."""
    settings = {"n_latents": 63} | settings
    coder = runs.new_coder(name, wiring, **settings).to(model.model.dtype)
    spliced = Spliced(objective, model, coder)
    (batch,) = clean_passes([spliced], [tokens(model)])
    return Case(new_trainee(name, coder, spliced.rows(batch), config, objective=spliced, start=start), batch)


def unrolled(
    model: LanguageModel, ids: Tensor, put: Callable[[str, Tensor], Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and what every site holds; ``put`` may replace what is there."""
    inner, seen = model.model.transformer, {}

    def at(site: str, x: Tensor) -> Tensor:
        seen[site] = put(site, x)
        return seen[site]

    x = inner.wte(ids) + inner.wpe(torch.arange(ids.shape[1]))
    for i, block in enumerate(inner.h):
        x = at(f"layers.{i}.resid_pre", x)
        x = at(f"layers.{i}.resid_mid", x + block.attn(block.ln_1(x))[0])
        written = block.mlp(at(f"layers.{i}.mlp_in", block.ln_2(x)))
        x = at(f"layers.{i}.resid_post", x + at(f"layers.{i}.mlp_out", written))
    return model.model.lm_head(inner.ln_f(x)), seen
