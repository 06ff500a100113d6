"""Text that goes on token by token: against Hugging Face's own generation, and with a cache against without."""

import itertools

import pytest
import torch
from torch import Tensor

from unweave.analysis.steering import Steer, SteerEdit
from unweave.coders.temporal import Temporal, TemporalConfig
from unweave.coders.topk import TopK, TopKConfig
from unweave.coders.wiring import Wiring
from unweave.errors import UserError
from unweave.models.generation import GenerationConfig, Speller, end_ids, generate
from unweave.models.language_model import LanguageModel

from ..conftest import CONTEXT

SITE = "layers.1.resid_post"


def steer_edit(model: LanguageModel) -> SteerEdit:
    coder = TopK(TopKConfig(n_latents=63, k=7), Wiring.sae(model.width(SITE), SITE)).requires_grad_(False)
    torch.nn.init.normal_(coder.W_enc)
    steers = [Steer(latent=7, strength=3.0, start=2), Steer(latent=60, mode="clamp", strength=2.0, end=11)]
    return SteerEdit(coder, [*steers, Steer(latent=33, mode="ablate")])


@pytest.mark.parametrize("cache", [True, False])
def test_the_most_likely_tokens_are_those_of_hugging_face(lm: LanguageModel, tokens: Tensor, cache: bool) -> None:
    config = GenerationConfig(n_tokens=23)
    ours = [step.token_id for step in generate(lm, tokens[:1], config=config, cache=cache)]
    mask = torch.ones_like(tokens[:1])
    theirs = lm.model.generate(tokens[:1], attention_mask=mask, do_sample=False, max_new_tokens=23)
    assert ours == theirs[0, tokens.shape[1] :].tolist()


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_cache_changes_nothing_when_latents_are_steered(
    lm: LanguageModel, tokens: Tensor, temperature: float
) -> None:
    edits = {SITE: steer_edit(lm)}
    config = GenerationConfig(n_tokens=17, temperature=temperature, seed=63, stop=False)
    fast = list(generate(lm, tokens[:1], edits, config))
    slow = list(generate(lm, tokens[:1], edits, config, cache=False))
    assert [step.token_id for step in fast] == [step.token_id for step in slow]
    torch.testing.assert_close(
        torch.stack([step.logits_V for step in fast]),
        torch.stack([step.logits_V for step in slow]),
        rtol=1e-4,
        atol=1e-4,
    )
    clean = list(generate(lm, tokens[:1], config=config))
    assert (clean[0].logits_V - fast[0].logits_V).abs().max() > 0.01, "the edit does something"


def test_each_step_has_the_logits_of_one_pass_over_all_before_it(gpt2: LanguageModel, tokens: Tensor) -> None:
    edits, config = {SITE: steer_edit(gpt2)}, GenerationConfig(n_tokens=9, stop=False)
    steps = list(generate(gpt2, tokens[:1], edits, config))
    whole = torch.cat([tokens[:1], torch.tensor([[step.token_id for step in steps]])], dim=1)
    with gpt2.patch(edits):
        logits = gpt2.logits(whole)[0, tokens.shape[1] - 1 : -1]
    torch.testing.assert_close(torch.stack([step.logits_V for step in steps]), logits, rtol=1e-4, atol=1e-4)


def test_what_needs_whole_sequences_gets_them(gpt2: LanguageModel, tokens: Tensor) -> None:
    lengths = []

    def look(x: Tensor) -> Tensor:
        lengths.append(x.shape[1])
        return x

    config = GenerationConfig(n_tokens=3, stop=False)
    list(generate(gpt2, tokens[:1], {SITE: look}, config))
    assert lengths == [9, 10, 11]
    temporal = Temporal(
        TemporalConfig(n_latents=63, n_heads=3, d_key=9, k=7, n_layers=2), Wiring.sae(gpt2.width(SITE), SITE)
    )
    edit = SteerEdit(temporal.requires_grad_(False), [Steer(latent=7, strength=5.0)])
    assert not edit.by_row
    steps = list(generate(gpt2, tokens[:1], {SITE: edit}, config))
    whole = torch.cat([tokens[:1], torch.tensor([[step.token_id for step in steps[:2]]])], dim=1)
    with gpt2.patch({SITE: edit}):
        assert torch.equal(steps[2].logits_V, gpt2.logits(whole)[0, -1])


def test_tokens_are_drawn_as_often_as_they_are_likely(gpt2: LanguageModel, tokens: Tensor) -> None:
    n, temperature = 150, 2.0
    config = [GenerationConfig(n_tokens=1, temperature=temperature, seed=seed) for seed in range(n)]
    steps = [next(generate(gpt2, tokens[:1], config=one)) for one in config]
    probability_V = (steps[0].logits_V / temperature).softmax(0)
    counts_V = torch.bincount(torch.tensor([step.token_id for step in steps]), minlength=len(probability_V))
    likely = probability_V.topk(63).indices.sort().values.chunk(7)
    for group in likely:
        expected = n * probability_V[group].sum().item()
        assert abs(counts_V[group].sum().item() - expected) < 4 * expected**0.5 + 1


def test_a_seed_gives_one_text_and_another_seed_another(gpt2: LanguageModel, tokens: Tensor) -> None:
    def text(seed: int) -> list[int]:
        config = GenerationConfig(n_tokens=20, temperature=1.0, seed=seed, stop=False)
        return [step.token_id for step in generate(gpt2, tokens[:1], config=config)]

    assert text(7) == text(7) != text(8)


def test_a_text_ends_behind_an_end_and_where_the_context_is_full(gpt2: LanguageModel, tokens: Tensor) -> None:
    config = GenerationConfig(n_tokens=500, temperature=3.0, seed=100)
    ends = end_ids(gpt2)
    assert ends == {gpt2.tokenizer.eos_token_id}
    endless = [s.token_id for s in generate(gpt2, tokens[:1], config=GenerationConfig(n_tokens=500, stop=False))]
    assert len(endless) == CONTEXT + 1 - tokens.shape[1]
    seeds = (GenerationConfig(n_tokens=50, temperature=9.0, seed=seed) for seed in itertools.count())
    ended = next(ids for c in seeds if ends & set(ids := [s.token_id for s in generate(gpt2, tokens[:1], config=c)]))
    assert ended[-1] in ends and not ends & set(ended[:-1])
    assert config.n_tokens > CONTEXT


@pytest.mark.parametrize("seed", range(3))
def test_pieces_of_text_make_the_whole(lm: LanguageModel, reader: str, seed: int) -> None:
    text = f"{reader} \U0001f9f6\u200d\U0001f9f5 שלום\n"
    ids = lm.tokens(text, prepend_bos=False)[0]
    speller = Speller(lm, ids[:5])
    pieces = [speller.add(token) for token in ids[5:].tolist()]
    assert lm.tokenizer.decode(ids[:5]) + "".join(pieces) + speller.rest() == text
    assert not any("\ufffd" in piece for piece in pieces) and "" in pieces


def test_half_a_character_at_the_end_is_shown_as_such(gpt2: LanguageModel) -> None:
    ids = gpt2.tokens("a\U0001f9f6", prepend_bos=False)[0]
    speller = Speller(gpt2, ids[:1])
    assert [speller.add(token) for token in ids[1:-1].tolist()] == [""] * (len(ids) - 2)
    assert speller.rest() == "\ufffd" and speller.rest() == ""


def test_what_cannot_go_on_is_refused(gpt2: LanguageModel, tokens: Tensor) -> None:
    with pytest.raises(UserError, match="one sequence"):
        generate(gpt2, tokens)
    with pytest.raises(UserError, match="reads at most 63 tokens, got 64"):
        generate(gpt2, torch.zeros(1, 64, dtype=torch.int64))
    with pytest.raises(UserError, match="not numbers"):
        next(generate(gpt2, tokens[:1], {SITE: lambda x: x * float("inf")}))
    with pytest.raises(UserError, match="n_tokens must be at least 1"):
        GenerationConfig(n_tokens=0)
    with pytest.raises(UserError, match="temperature must be 0 or more"):
        GenerationConfig(temperature=float("nan"))
