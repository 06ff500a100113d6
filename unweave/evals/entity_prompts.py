"""Prompts about entities as a model reads them: where the entity ends, and which answers the model gives.

Only prompts that the model answers are kept, as in RAVEL. An answer is a number of tokens, and it is given where each
is the most likely one behind those before it: what greedy decoding would write. Known values are looked for with and
without a space in front. Where the model itself is asked, an answer is one token, all templates of an attribute have to
agree on it, and answers of only a few entities are left out.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unweave.errors import UserError
from unweave.evals.entities import EntityTask
from unweave.evals.pooled import beginning
from unweave.formats.ravel_files import SLOT
from unweave.models.language_model import LanguageModel

_FEWEST = 12
"""Entities that have an answer in common, below which it is left out where the model itself is asked."""
_LOGITS_AT_ONCE = 2**26


class Prompts(NamedTuple):
    """Prompts with their answers, in the order of attributes, templates and entities."""

    attributes: tuple[str, ...]
    sequences: list[Int[np.ndarray, " _"]]
    """The tokens of each prompt."""
    positions: Int[np.ndarray, " N"]
    """Where the last token of the entity is."""
    entities: Int[np.ndarray, " N"]
    of_attribute: Int[np.ndarray, " N"]
    templates: Int[np.ndarray, " N"]
    """Counted over all attributes."""
    answers: list[tuple[int, ...]]
    """The tokens of each answer."""
    n_unaligned: int
    """Prompts that were left out because a token goes over the edge of the entity."""

    def where(self, keep: Int[np.ndarray, " M"]) -> "Prompts":
        """Some of them, in this order."""
        return self._replace(
            sequences=[self.sequences[i] for i in keep],
            positions=self.positions[keep],
            entities=self.entities[keep],
            of_attribute=self.of_attribute[keep],
            templates=self.templates[keep],
            answers=[self.answers[i] for i in keep],
        )


class Expected(NamedTuple):
    """Some sequences as one batch, each the tokens of a prompt and all but the last of an answer."""

    numbers: Int[np.ndarray, " n"]
    """Which of all sequences these are."""
    tokens: Int[Tensor, "n T"]
    places: Int[Tensor, "n A"]
    """Behind which tokens those of the answer are expected."""
    answers: Int[Tensor, "n A"]
    """The tokens of the answer; -1 where it is shorter than others."""

    def are_said(self, logits: Float[Tensor, "n T V"]) -> Bool[np.ndarray, " n"]:
        """Whether every token of the answer is the most likely one."""
        said = _most_likely(logits, self.places).cpu()
        return ((said == self.answers) | (self.answers < 0)).all(1).numpy()


def answered_prompts(model: LanguageModel, task: EntityTask) -> Prompts:
    """The prompts of a task that the model answers; raises ``UserError`` where no attribute has two answers left."""
    found = _aligned(model, task)
    kept = _own_answers(model, found) if task.values is None else _known_answers(model, found, task)
    for side in (False, True):
        own = np.flatnonzero(task.is_test[kept.entities] == side)
        several = [number for number in range(len(kept.attributes)) if _can_differ(kept, own, number)]
        if len(several) < 2:
            raise UserError(
                f"{model.name} gives more than one answer for {len(several)} of the {len(kept.attributes)} attributes "
                f"of task {task.name!r} ({len(kept.answers)} prompts answered); an interchange needs two attributes "
                "with two answers each, on entities to choose by and to measure on"
            )
        kept = kept.where(np.flatnonzero(np.isin(kept.of_attribute, several)))
    return kept


def expected(
    model: LanguageModel, sequences: Sequence[Int[np.ndarray, " _"]], answers: Sequence[tuple[int, ...]]
) -> Iterator[Expected]:
    """Batches of sequences of like length, padded behind, where a causal model cannot see it from the answer."""
    lengths = np.array([len(sequence) + len(answer) - 1 for sequence, answer in zip(sequences, answers, strict=True)])
    order = np.argsort(lengths, kind="stable")
    while len(order):
        fitting = np.arange(1, len(order) + 1) * lengths[order] * model.n_vocabulary <= _LOGITS_AT_ONCE
        n = max(1, int(fitting.sum()))
        numbers, order = order[:n], order[n:]
        longest = max(len(answers[i]) for i in numbers)
        tokens = np.zeros((n, int(lengths[numbers].max())), dtype=np.int64)
        places, wanted = np.zeros((n, longest), dtype=np.int64), np.full((n, longest), -1)
        for row, i in enumerate(numbers):
            n_prompt, answer = len(sequences[i]), answers[i]
            tokens[row, : lengths[i]] = [*sequences[i], *answer[:-1]]
            places[row, : len(answer)] = n_prompt - 1 + np.arange(len(answer))
            wanted[row, : len(answer)] = answer
        yield Expected(numbers, *map(torch.from_numpy, (tokens, places, wanted)))


def _aligned(model: LanguageModel, task: EntityTask) -> Prompts:
    """All prompts in which the entity begins and ends with a token; their answers are not known yet."""
    front = beginning(model)
    if not model.tokenizer.is_fast:
        raise UserError(f"the tokenizer of {model.name} does not tell where in a text its tokens are; use a fast one")
    templates = _templates(task)
    asked = [
        (entity, attribute, number)
        for number, (attribute, _) in enumerate(templates)
        for entity in range(len(task.entities))
    ]
    texts = [templates[number][1].replace(SLOT, task.entities[entity]) for entity, _, number in asked]
    told = model.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    sequences, columns = [], []
    for text, (entity, attribute, number), ids, spans in zip(
        texts, asked, told["input_ids"], told["offset_mapping"], strict=True
    ):
        start = templates[number][1].index(SLOT)
        at = _entity_end(text, spans, start, start + len(task.entities[entity]))
        if at is not None and (model.max_context is None or len(front) + len(ids) <= model.max_context):
            sequences.append(np.array([*front, *ids], dtype=np.int64))
            columns.append((len(front) + at, entity, attribute, number))
    if not sequences:
        raise UserError(
            f"in none of the {len(asked)} prompts of task {task.name!r} the entity begins and ends with a token of "
            f"{model.name}; let templates have a space or a sign on either side of {SLOT}"
        )
    positions, entities, of_attribute, templates = np.array(columns, dtype=np.int64).T
    nothing = [()] * len(sequences)
    n_unaligned = len(asked) - len(sequences)
    return Prompts(tuple(task.templates), sequences, positions, entities, of_attribute, templates, nothing, n_unaligned)


def _can_differ(prompts: Prompts, places: Int[np.ndarray, " M"], attribute: int) -> bool:
    """Whether two of these prompts have the same template and another answer."""
    own = [i for i in places if prompts.of_attribute[i] == attribute]
    answers = {(int(prompts.templates[i]), prompts.answers[i]) for i in own}
    return len(answers) > len({template for template, _ in answers})


def _templates(task: EntityTask) -> list[tuple[int, str]]:
    """The attribute and the text of every template."""
    return [(number, text) for number, found in enumerate(task.templates.values()) for text in found]


def _entity_end(text: str, spans: Sequence[tuple[int, int]], start: int, end: int) -> int | None:
    """The token that the entity ends with; None where it has no token of its own to begin or end with."""
    last = next((i for i, span in enumerate(spans) if span[0] < end <= span[1]), None)
    first = next((span for span in spans if span[0] <= start < span[1]), None)
    if last is None or first is None or spans[last][1] != end or text[first[0] : start].strip():
        return None
    return last


def _own_answers(model: LanguageModel, prompts: Prompts) -> Prompts:
    answers = np.zeros(len(prompts.sequences), dtype=np.int64)
    for batch in expected(model, prompts.sequences, [(0,)] * len(answers)):
        answers[batch.numbers] = _most_likely(model.logits(batch.tokens), batch.places)[:, 0].cpu().numpy()
    keep = []
    for attribute in range(len(prompts.attributes)):
        own = np.flatnonzero(prompts.of_attribute == attribute)
        by_entity: dict[int, set[int]] = {}
        for i in own:
            by_entity.setdefault(int(prompts.entities[i]), set()).add(int(answers[i]))
        agreed = {entity: found.pop() for entity, found in by_entity.items() if len(found) == 1}
        counts = Counter(agreed.values())
        keep += [i for i in own if counts[agreed.get(int(prompts.entities[i]), -1)] >= _FEWEST]
    return prompts._replace(answers=[(int(answer),) for answer in answers]).where(np.array(keep, dtype=np.int64))


def _known_answers(model: LanguageModel, prompts: Prompts, task: EntityTask) -> Prompts:
    """Prompts whose answer begins with the known value, in the form in which the model gives it."""
    assert task.values is not None
    n_front = len(beginning(model))
    names, templates = list(task.templates), _templates(task)
    answers: list[tuple[int, ...]] = [()] * len(prompts.sequences)
    for space in (" ", ""):
        asked = []
        for i in range(len(answers)):
            entity = task.entities[prompts.entities[i]]
            value = task.values[entity].get(names[prompts.of_attribute[i]])
            if value is not None and not answers[i]:
                asked.append((i, templates[prompts.templates[i]][1].replace(SLOT, entity) + space + value))
        if not asked:
            continue
        found = model.tokenizer([text for _, text in asked], add_special_tokens=False)["input_ids"]
        forms = []
        for (i, _), ids in zip(asked, found, strict=True):
            own = list(prompts.sequences[i][n_front:])
            if list(ids[: len(own)]) == own and len(ids) > len(own):
                forms.append((i, tuple(ids[len(own) :])))
        for batch in expected(model, [prompts.sequences[i] for i, _ in forms], [form for _, form in forms]):
            for number in batch.numbers[batch.are_said(model.logits(batch.tokens))]:
                i, form = forms[number]
                answers[i] = form
    return prompts._replace(answers=answers).where(np.array([i for i, form in enumerate(answers) if form], dtype=int))


def _most_likely(logits: Float[Tensor, "n T V"], places: Int[Tensor, "n A"]) -> Int[Tensor, "n A"]:
    rows = torch.arange(len(places), device=logits.device)[:, None]
    return logits[rows, places.to(logits.device)].argmax(-1)
