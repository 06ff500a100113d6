"""Two texts while they are written, as the model has them and with latents changed: what is asked, and the events."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from unweave.analysis.steering import Mode, Steer, SteerEdit, divergence
from unweave.errors import UserError
from unweave.models.generation import Generated, GenerationConfig, Speller, end_ids, generate
from unweave.storage.latent_table import TableRow
from unweave.web.latent import check_latent
from unweave.web.library import Library, Loaded
from unweave.web.prompt import named

Side = Literal["baseline", "steered"]
Reason = Literal["tokens", "end of text", "context"]
"""Why a text ends: it has all its tokens, the model ended it, or the model's context is full."""
LONGEST_PROMPT = 20_000
"""Characters."""
MOST_LATENTS = 8
_LIKELY = 8
"""Tokens of each side whose probabilities are shown before and after."""


class Chosen(BaseModel):
    """What to do to a latent."""

    latent: Annotated[int, Field(ge=0, lt=2**31)]
    mode: Mode = "add"
    strength: Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)] = 1.0
    """Without a meaning for ``ablate``; the factor of ``scale``."""
    unit: Literal["max", "absolute"] = "max"
    """Of ``add`` and ``clamp``: the latent's largest activation in the index, or activations as they are."""


class Settings(BaseModel):
    """How the texts go on."""

    prompt: Annotated[str, Field(max_length=LONGEST_PROMPT)] = ""
    positions: Literal["all", "prompt", "generated", "from"] = "all"
    """Where latents are changed, among the tokens that the model reads."""
    first: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """The first position of ``from``."""
    temperature: Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)] = 0.0
    n_tokens: Annotated[int, Field(ge=1, le=400)] = 40
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class SteerBody(Settings):
    """What to write."""

    latents: Annotated[list[Chosen], Field(min_length=1, max_length=MOST_LATENTS)]


class Change(NamedTuple):
    """A token that may come next."""

    token_id: int
    text: str
    before: float
    """Its probability."""
    after: float


@dataclass(frozen=True)
class TokenEvent:
    """A token was written."""

    kind: Literal["token"]
    side: Side
    token_id: int
    text: str
    """What it adds to the text: nothing while a character is not whole."""
    probability: float
    """At temperature 1."""


@dataclass(frozen=True)
class NextEvent:
    """What comes right behind the prompt, before and after the edit."""

    kind: Literal["next"]
    likely: list[Change]
    """The likeliest of both, those that change most first."""
    kl: float
    """KL(before || after) in nats."""


@dataclass(frozen=True)
class EndEvent:
    """Both texts are written."""

    kind: Literal["end"]
    because: dict[Side, Reason]
    rest: dict[Side, str]
    """What is left of a character that never was whole."""
    kl: list[float]
    """At each token of the steered text: KL of the model as it is from the steered one, on the same text so far."""


@dataclass(frozen=True)
class ProblemEvent:
    """The texts cannot go on."""

    kind: Literal["problem"]
    error: str


Event = Annotated[TokenEvent | NextEvent | EndEvent | ProblemEvent, Field(discriminator="kind")]


def written(library: Library, run: str, asked: SteerBody) -> Iterator[Event]:
    """Both texts, event by event; the model is free between two tokens.

    Raises ``UserError`` where they cannot begin or go on.
    """
    for one in asked.latents:
        check_latent(library, run, one.latent)
    rows, _ = named(library, run, [one.latent for one in asked.latents])
    loaded = library.loaded(run)
    with library.busy:
        tokens = loaded.model.tokens(asked.prompt, prepend_bos=loaded.recipe.packing.prepend_bos).long()
    edit = SteerEdit(loaded.coder, [_steer(loaded, one, rows[one.latent], asked, tokens) for one in asked.latents])
    config = GenerationConfig(n_tokens=asked.n_tokens, temperature=asked.temperature, seed=asked.seed)
    texts: dict[Side, Iterator[Generated]] = {
        "baseline": generate(loaded.model, tokens, config=config),
        "steered": generate(loaded.model, tokens, {loaded.sites[0]: edit}, config),
    }
    steps: dict[Side, list[Generated]] = {"baseline": [], "steered": []}
    spellers: dict[Side, Speller] = {side: Speller(loaded.model, tokens[0]) for side in texts}
    while texts:
        for side, text in list(texts.items()):
            with library.busy:
                step = next(text, None)
            if step is None:
                del texts[side]
                continue
            steps[side].append(step)
            yield _token(side, step, spellers[side])
            if side == "steered" and len(steps[side]) == 1:
                yield _compared(loaded, steps["baseline"][0].logits_V, step.logits_V)
    with library.busy:
        kl = _kl(loaded, tokens, steps["steered"])
    because: dict[Side, Reason] = {side: _because(loaded, done, asked.n_tokens) for side, done in steps.items()}
    rest: dict[Side, str] = {side: speller.rest() for side, speller in spellers.items()}
    yield EndEvent("end", because, rest, kl)


def _steer(loaded: Loaded, one: Chosen, row: TableRow, asked: SteerBody, tokens: Tensor) -> Steer:
    in_units = one.mode in ("add", "clamp") and one.unit == "max"
    if in_units and row.max == 0:
        raise UserError(f"latent {one.latent} never fires in the index, so it has no largest activation; use absolute")
    n = tokens.shape[1]
    start = {"generated": n, "from": asked.first}.get(asked.positions, 0)
    return Steer(
        latent=one.latent,
        mode=one.mode,
        strength=None if one.mode == "ablate" else one.strength,
        unit=row.max if in_units else 1.0,
        start=max(start, _unseen(loaded)),
        end=n if asked.positions == "prompt" else None,
    )


def _unseen(loaded: Loaded) -> int:
    """Tokens in front of every text that the coder never saw in training, and that so are left as they are."""
    packing = loaded.recipe.packing
    n_added = loaded.model.tokens("", prepend_bos=packing.prepend_bos).shape[1]
    return max(n_added if packing.exclude_special_tokens else 0, int(packing.exclude_first_position))


def _token(side: Side, step: Generated, speller: Speller) -> TokenEvent:
    probability = float(step.logits_V.softmax(0)[step.token_id])
    return TokenEvent("token", side, step.token_id, speller.add(step.token_id), _short(probability))


def _compared(loaded: Loaded, before_V: Tensor, after_V: Tensor) -> NextEvent:
    before, after = before_V.softmax(0), after_V.softmax(0)
    ids = sorted(
        {
            *before.topk(min(_LIKELY, len(before))).indices.tolist(),
            *after.topk(min(_LIKELY, len(after))).indices.tolist(),
        }
    )
    texts = loaded.texts(ids)
    changes = [
        Change(i, text, _short(float(before[i])), _short(float(after[i]))) for i, text in zip(ids, texts, strict=True)
    ]
    changes.sort(key=lambda change: -max(change.before, change.after))
    return NextEvent("next", changes[:_LIKELY], _short(float(divergence(before_V[None], after_V[None])[0])))


def _kl(loaded: Loaded, tokens: Tensor, steps: list[Generated]) -> list[float]:
    written = torch.tensor([[step.token_id for step in steps[:-1]]], dtype=tokens.dtype)
    before = loaded.model.logits(torch.cat([tokens, written], dim=1))[0, tokens.shape[1] - 1 :].cpu()
    return [_short(value) for value in divergence(before, torch.stack([step.logits_V for step in steps])).tolist()]


def _because(loaded: Loaded, steps: list[Generated], most: int) -> Reason:
    if steps[-1].token_id in end_ids(loaded.model):
        return "end of text"
    return "tokens" if len(steps) == most else "context"


def _short(value: float) -> float:
    return float(f"{value:.4g}")
