"""Interchanges: pairs of entities in the same prompt, and what the model says once a row of one has moved to the other.

A base prompt and a source prompt differ in their entity alone, and in their answer. At a site, the row of the base at
the last token of its entity becomes x_base + delta. Then either the answer is the source's, or it is still the base's.
Blocks in front of the site do not run again, and all changes are tried on the same batch.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unweave.evals.entity_prompts import Prompts, expected
from unweave.models.language_model import Edit, LanguageModel
from unweave.models.prefix import after_prefix, keeping_prefix

Delta = Callable[[Int[np.ndarray, " n"], Int[np.ndarray, " n"]], Float[np.ndarray, "n D"]]
"""From base prompts and source prompts to what is added to the rows of the bases."""
Name = TypeVar("Name", bound=Hashable)


class Pairs(NamedTuple):
    """Prompts, by their number, that ask for one attribute."""

    base: Int[np.ndarray, " P"]
    source: Int[np.ndarray, " P"]


def pairs_of(
    prompts: Prompts, attribute: int, usable_N: Bool[np.ndarray, " N"], at_most: int, generator: np.random.Generator
) -> Pairs:
    """Pairs of usable prompts of one template with different answers, drawn from all there are."""
    own = np.flatnonzero((prompts.of_attribute == attribute) & usable_N)
    kinds = {answer: kind for kind, answer in enumerate(dict.fromkeys(prompts.answers[i] for i in own))}
    answers = np.array([kinds[prompts.answers[i]] for i in own], dtype=np.int64)
    templates = prompts.templates[own]
    differ = (answers[:, None] != answers[None]) & (templates[:, None] == templates[None])
    base, source = np.nonzero(differ)
    chosen = np.sort(generator.permutation(len(base))[:at_most])
    return Pairs(own[base[chosen]], own[source[chosen]])


def interchanged(
    model: LanguageModel, prompts: Prompts, pairs: Pairs, site: str, deltas: Mapping[Name, Delta], *, becomes: bool
) -> dict[Name, Bool[np.ndarray, " P"]]:
    """For each change by name, whether the answer of each pair becomes the source's, or whether it stays the base's."""
    sequences = [prompts.sequences[i] for i in pairs.base]
    answers = [prompts.answers[i] for i in (pairs.source if becomes else pairs.base)]
    found = {name: np.zeros(len(sequences), dtype=bool) for name in deltas}
    for batch in expected(model, sequences, answers):
        base, source = pairs.base[batch.numbers], pairs.source[batch.numbers]
        with keeping_prefix(model, [site]) as prefix:
            model.logits(batch.tokens)
        for name, delta in deltas.items():
            edit = _adding(delta(base, source), prompts.positions[base])
            with after_prefix(model, prefix), model.patch({site: edit}):
                found[name][batch.numbers] = batch.are_said(model.logits(batch.tokens))
    return found


def _adding(delta: Float[np.ndarray, "n D"], positions: Int[np.ndarray, " n"]) -> Edit:
    def edit(x: Float[Tensor, "n T D"]) -> Float[Tensor, "n T D"]:
        new = x.clone()
        rows = torch.arange(len(positions), device=x.device)
        new[rows, torch.from_numpy(positions).to(x.device)] += torch.from_numpy(delta).to(x)
        return new

    return edit
