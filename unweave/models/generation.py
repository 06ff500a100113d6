"""What a model goes on to say, token by token, with edits of its activations.

The next token is the most likely one, or it is drawn from p = softmax(logits / temperature): it is the argmax of
logits / temperature + g, where g_v = -log(-log(u_v)) for u_v uniform (Gumbel's noise; Maddison et al. 2014, arXiv
1411.0030). The noise follows from the seed and the number of the step alone, so two texts of one seed, with and
without an edit, stay the same until the edit makes them differ.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.errors import UserError
from unweave.models.inputs import logits_of, reads_tokens
from unweave.models.language_model import Edit, LanguageModel

_LONGEST_CHARACTER = 8
"""Tokens after which bytes that are not a whole character are given up."""
_BEFORE = 6
"""Tokens that are decoded again with each new one, since a tokenizer may leave out a space in front of the first."""


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """How a text goes on."""

    n_tokens: int = 40
    """Most tokens to add."""
    temperature: float = 0.0
    """0: always the most likely token; 1: tokens as likely as the model has them; more: unlikely ones more often."""
    seed: int = 0
    """Of the noise that draws tokens."""
    stop: bool = True
    """End behind a token that ends a text."""

    def __post_init__(self) -> None:
        if self.n_tokens < 1:
            raise UserError(f"n_tokens must be at least 1, got {self.n_tokens}")
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature must be 0 or more, got {self.temperature}")


class Generated(NamedTuple):
    """One step."""

    token_id: int
    logits_V: Float[Tensor, " V"]
    """Those from which the token was chosen, before the temperature, on the CPU."""


@runtime_checkable
class PlacedEdit(Protocol):
    """An edit that may be given a sequence in parts, so that a cache of keys and values serves."""

    @property
    def by_row(self) -> bool:
        """Whether it edits each row by itself."""
        ...

    def at(self, first: int, /) -> Edit:
        """The edit of activations whose first row is at this position of the sequence."""
        ...


def generate(
    model: LanguageModel,
    tokens: Int[Tensor, "N T"],
    edits: Mapping[str, Edit] | None = None,
    config: GenerationConfig = GenerationConfig(),
    *,
    cache: bool = True,
) -> Iterator[Generated]:
    """The tokens that follow on one sequence, one at a time, with edits by site.

    Ends at ``n_tokens``, behind a token that ends a text, or where the model's context is full. ``cache``: keep keys
    and values, where the model can and every edit is a ``PlacedEdit`` by row; else each step reads the whole sequence.
    No hook is left between two steps. Raises ``UserError`` for tokens that the model cannot go on from, and for edits
    after which the logits are not numbers.
    """
    _check(model, tokens)
    edits = edits or {}
    return _steps(model, tokens, edits, config, cache and _can_cache(model, edits))


def end_ids(model: LanguageModel) -> frozenset[int]:
    """Tokens that end a text, as the model's files and its tokenizer say."""
    told = getattr(getattr(model.model, "generation_config", None), "eos_token_id", None)
    told = getattr(model.tokenizer, "eos_token_id", None) if told is None else told
    return frozenset() if told is None else frozenset([told] if isinstance(told, int) else told)


class Speller:
    """The text of tokens as they come, a character that several tokens share in one piece."""

    def __init__(self, model: LanguageModel, before: Int[Tensor, " T"]) -> None:
        """``before``: the tokens in front."""
        self._decode = model.tokenizer.decode
        self._before = before[-_BEFORE:].tolist()
        self._waiting: list[int] = []

    def add(self, token_id: int) -> str:
        """What the token adds to the text: nothing while a character is not whole."""
        self._waiting.append(token_id)
        text = self._text()
        if text.endswith("\ufffd") and len(self._waiting) < _LONGEST_CHARACTER:
            return ""
        return self._spelt(text)

    def rest(self) -> str:
        """What is left at the end."""
        return self._spelt(self._text()) if self._waiting else ""

    def _spelt(self, text: str) -> str:
        self._before = [*self._before, *self._waiting][-_BEFORE:]
        self._waiting = []
        return text

    def _text(self) -> str:
        known = self._decode(self._before, clean_up_tokenization_spaces=False)
        return self._decode([*self._before, *self._waiting], clean_up_tokenization_spaces=False)[len(known) :]


def _check(model: LanguageModel, tokens: Tensor) -> None:
    own, limit = model.model, model.max_context
    if tokens.ndim != 2 or tokens.shape[0] != 1 or tokens.shape[1] == 0:
        raise UserError(f"a text goes on from one sequence [1, T] of at least one token, got {list(tokens.shape)}")
    causal = not hasattr(own, "config") or (own.can_generate() and not own.config.is_encoder_decoder)
    if not (causal and reads_tokens(own)):
        raise UserError(f"{model.name} does not say what comes next, so it has no text to go on with")
    if limit is not None and tokens.shape[1] > limit:
        raise UserError(f"{model.name} reads at most {limit:,} tokens, got {tokens.shape[1]:,}; give it a shorter text")


def _can_cache(model: LanguageModel, edits: Mapping[str, Edit]) -> bool:
    placed = all(isinstance(edit, PlacedEdit) and edit.by_row for edit in edits.values())
    takes = inspect.signature(type(model.model).forward).parameters
    return placed and hasattr(model.model, "config") and {"past_key_values", "use_cache"} <= takes.keys()


def _steps(
    model: LanguageModel, tokens: Tensor, edits: Mapping[str, Edit], config: GenerationConfig, cached: bool
) -> Iterator[Generated]:
    noise = torch.Generator().manual_seed(config.seed)
    ends = end_ids(model) if config.stop else frozenset()
    limit = model.max_context or tokens.shape[1] + config.n_tokens
    unread, first, kept = tokens, 0, None
    for _ in range(min(config.n_tokens, limit + 1 - tokens.shape[1])):
        placed = {site: edit.at(first) if isinstance(edit, PlacedEdit) else edit for site, edit in edits.items()}
        with torch.no_grad(), model.patch(placed):
            logits_V, kept = _read(model, unread, kept) if cached else (model.run(unread).logits[0, -1], None)
        token = _chosen(logits_V.float().cpu(), config, noise)
        yield token
        if token.token_id in ends:
            return
        added = torch.tensor([[token.token_id]])
        first = first + unread.shape[1] if cached else 0
        unread = added if cached else torch.cat([unread, added], dim=1)


def _read(model: LanguageModel, unread: Tensor, kept: Any) -> tuple[Tensor, Any]:
    """Logits behind the last token, and the keys and values of all that was read."""
    output = model.model(input_ids=unread.to(model.device), past_key_values=kept, use_cache=True)
    assert output.past_key_values is not None, "the model takes keys and values and gives none"
    return logits_of(output, model.name)[0, -1], output.past_key_values


def _chosen(logits_V: Float[Tensor, " V"], config: GenerationConfig, noise: torch.Generator) -> Generated:
    if logits_V.isnan().any() or logits_V.max().isinf():
        raise UserError("after this edit the model's logits are not numbers; make the edit weaker")
    if config.temperature == 0:
        return Generated(int(logits_V.argmax()), logits_V)
    uniform_V = torch.rand(logits_V.shape, generator=noise, dtype=torch.float64)
    drawn_V = logits_V.double() / config.temperature - (-uniform_V.log()).log()
    return Generated(int(drawn_V.argmax()), logits_V)
