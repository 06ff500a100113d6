"""RAVEL: do few latents decide one attribute of an entity and leave the others alone? (Huang et al. 2024, 2402.17700.)

Entities, say cities, have attributes, say country and language; prompts ask for one attribute of one entity. A base and
a source prompt differ in their entity b and s, and in their answer. At the last token of the base's entity some latents
S get the source's values, and the coder's error is kept:

    x' = x_b + sum_{i in S} (f_i(s) - f_i(b)) d_i

    apart_A    of latent i: sum_v p_v (mean of f_i over value v of A - mean over all)^2 |d_i|^2, on entities that
               are not measured, as a share of the sum over latents
    S_A        the n latents whose apart_A is furthest over that of any other attribute, as far as it is over it at all
    cause      share of pairs about A whose answer becomes the source's when S_A is moved
    isolation  share of pairs about another attribute whose answer stays the base's when S_A is moved; mean over these
    ravel      mean of cause and isolation, mean over attributes A

To move nothing has cause 0 and isolation 1, to move the whole row nearly the opposite: both score about 1/2, and only
what is more tells attributes apart. A block of entities is left out with every pair that has one of them on either side
(the jackknife of a mean over pairs, Arvesen 1969). SAEBench (2503.09532) learns S_A as a mask and drops the error.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from unweave.coders import SparseCoder
from unweave.evals.ablation import decoder
from unweave.evals.entities import EntityTask
from unweave.evals.entity_prompts import Prompts, answered_prompts
from unweave.evals.interchange import Delta, Pairs, interchanged, pairs_of
from unweave.evals.measured import Measured, Weightings, mean_of_known, weighted_mean
from unweave.evals.pooled import Pooled, check_ablatable, check_coders, single_tokens, summed
from unweave.metrics.base import Definition
from unweave.models.language_model import LanguageModel

COUNTS = (10, 50, 200)
"""Numbers of latents that are moved."""
PAIRS = 80
"""Pairs for each attribute."""


def definitions(counts: Sequence[int] = COUNTS) -> tuple[Definition, ...]:
    """What the figures mean."""
    found = []
    for n in counts:
        found += [
            Definition(
                f"ravel_{n}",
                f"Disentanglement, {n} latents",
                f"Mean of cause and isolation when the {n} latents of an attribute get another entity's values.",
                "over 0.5, which is had by moving nothing or everything, and well over that of random latents; up to 1",
            ),
            Definition(
                f"ravel_cause_{n}",
                f"Cause, {n} latents",
                f"Share of answers about an attribute that become the other entity's when its {n} latents are moved.",
                "towards that of the whole row",
            ),
            Definition(
                f"ravel_isolation_{n}",
                f"Isolation, {n} latents",
                f"Share of answers about other attributes that stay when the {n} latents of one are moved.",
                "near 1, where cause is not near 0",
            ),
            Definition(
                f"ravel_random_{n}",
                f"Disentanglement, {n} random latents",
                f"The same for {n} random latents of those that are active on the entities.",
                "a floor, near 0.5",
            ),
        ]
    return (
        *found,
        Definition(
            "ravel_row",
            "Disentanglement, whole row",
            "Mean of cause and isolation when the whole row becomes that of the other entity.",
            "a floor, near 0.5",
        ),
        Definition(
            "ravel_cause_row",
            "Cause, whole row",
            "Share of answers that become the other entity's when the whole row is moved: what this place can do.",
            "a ceiling for cause; where it is near 0, the answer is not made of this row, and nothing else can be said",
        ),
        Definition(
            "ravel_isolation_row",
            "Isolation, whole row",
            "Share of answers about other attributes that stay when the whole row is moved.",
            "a floor for isolation, near 0",
        ),
    )


class _Move(NamedTuple):
    """What was moved, and what the model was asked."""

    owner: str
    """The coder, or the site where the whole row is moved."""
    change: str
    target: int
    """The attribute by which latents were chosen."""
    asked: int


class Questions(NamedTuple):
    """A task as the model reads it, and what the coders make of its entities."""

    task: EntityTask
    prompts: Prompts
    pooled: Pooled
    """The row and the latents at the last token of the entity of each prompt."""
    pairs: dict[int, Pairs]
    """Attribute to pairs that are measured."""


def measure_ravel(
    model: LanguageModel,
    coders: Mapping[str, SparseCoder],
    tasks: Sequence[EntityTask],
    *,
    counts: Sequence[int] = COUNTS,
    n_pairs: int = PAIRS,
    seed: int = 0,
) -> dict[str, Measured]:
    """The figures of several coders, mean over tasks; ``seed`` draws pairs and random latents.

    Counts that a coder has no latents for are left out of its figures. Raises ``UserError`` for coders that write
    elsewhere than they read, and for tasks of which the model knows too little.
    """
    check_ablatable(coders)
    check_coders(model, coders)
    by_task = [ask(model, coders, task, n_pairs, seed) for task in tasks]
    moved = [_moved(model, coders, questions, counts, seed) for questions in by_task]
    return {name: _measured(name, coder.site, _usable(counts, coder), by_task, moved) for name, coder in coders.items()}


def ask(
    model: LanguageModel, coders: Mapping[str, SparseCoder], task: EntityTask, n_pairs: int, seed: int
) -> Questions:
    """What is shared by all coders, and their latents."""
    prompts = answered_prompts(model, task)
    places = single_tokens(np.arange(len(prompts.sequences)), prompts.positions)
    generator = np.random.default_rng(seed)
    is_test = task.is_test[prompts.entities]
    attributes = np.unique(prompts.of_attribute).tolist()
    pairs = {attribute: pairs_of(prompts, attribute, is_test, n_pairs, generator) for attribute in attributes}
    return Questions(task, prompts, summed(model, coders, prompts.sequences, places), pairs)


def apartness(latents: csr_array, answers: Sequence[tuple[int, ...]]) -> Float[np.ndarray, " L"]:
    """How far the means of each latent for different answers are from its mean, squared; answers by their share."""
    kinds = {answer: kind for kind, answer in enumerate(dict.fromkeys(answers))}
    of_row = np.array([kinds[answer] for answer in answers])
    counts = np.bincount(of_row)
    averaging = csr_array((1 / counts[of_row], (of_row, np.arange(len(of_row)))), shape=(len(kinds), len(of_row)))
    means_VL = csr_array(averaging @ latents).toarray()
    share_V = counts / len(of_row)
    return share_V @ (means_VL - share_V @ means_VL) ** 2


def ranked_latents(apart_AL: Float[np.ndarray, "A L"], target: int) -> Int[np.ndarray, " K"]:
    """Latents that are further apart for one attribute than for any other, in shares of each attribute's sum."""
    share_AL = apart_AL / np.maximum(apart_AL.sum(1, keepdims=True), 1e-30)
    score_L = share_AL[target] - np.delete(share_AL, target, axis=0).max(0)
    ranked = np.argsort(-score_L, kind="stable")
    return ranked[score_L[ranked] > 0]


def _moved(
    model: LanguageModel, coders: Mapping[str, SparseCoder], questions: Questions, counts: Sequence[int], seed: int
) -> dict[_Move, Bool[np.ndarray, " P"]]:
    """Which pairs did as they should: the answer became the source's about the target, or stayed about another."""
    found = {}
    sites = {name: coder.site for name, coder in coders.items()}
    for target in questions.pairs:
        changes = {name: _changes(name, coder, questions, target, counts, seed) for name, coder in coders.items()}
        for site in dict.fromkeys(sites.values()):
            first = next(name for name in coders if sites[name] == site)
            rows = questions.pooled.rows[first]
            at_site = {(site, "row"): lambda base, source, rows=rows: rows[source] - rows[base]}
            for name, own in changes.items():
                at_site |= {(name, change): delta for change, delta in own.items() if sites[name] == site}
            for asked, pairs in questions.pairs.items():
                hits = interchanged(model, questions.prompts, pairs, site, at_site, becomes=asked == target)
                found |= {_Move(*change, target, asked): hit for change, hit in hits.items()}
    return found


def _changes(
    name: str, coder: SparseCoder, questions: Questions, target: int, counts: Sequence[int], seed: int
) -> dict[str, Delta]:
    """Moving the latents of an attribute, and as many random ones of those that are active where latents are chosen."""
    latents, W_dec, prompts = questions.pooled.latents[name], decoder(coder), questions.prompts
    learn = np.flatnonzero(~questions.task.is_test[prompts.entities])
    apart = []
    for attribute in questions.pairs:
        own = learn[prompts.of_attribute[learn] == attribute]
        apart.append(apartness(latents[own], [prompts.answers[i] for i in own]) * (W_dec**2).sum(1))
    ranked = ranked_latents(np.stack(apart), list(questions.pairs).index(target))
    mixed = np.random.default_rng([seed, target]).permutation(np.unique(latents[learn].indices))
    found = {}
    for n in _usable(counts, coder):
        found[str(n)] = _moving(latents, ranked[:n], W_dec)
        found[f"random_{n}"] = _moving(latents, mixed[:n], W_dec)
    return found


def _usable(counts: Sequence[int], coder: SparseCoder) -> list[int]:
    return [n for n in counts if 0 < n <= coder.n_latents]


def _moving(latents: csr_array, chosen: Int[np.ndarray, " K"], W_dec: Float[np.ndarray, "L D"]) -> Delta:
    columns = latents[:, chosen]
    return lambda base, source: (columns[source] - columns[base]) @ W_dec[chosen]


def _measured(
    name: str,
    site: str,
    counts: Sequence[int],
    by_task: Sequence[Questions],
    moved: Sequence[Mapping[_Move, Bool[np.ndarray, " P"]]],
) -> Measured:
    measured_on = [
        questions.task.documents[questions.prompts.entities[places]]
        for questions in by_task
        for pairs in questions.pairs.values()
        for places in pairs
    ]
    weightings = Weightings.of(measured_on)
    found: dict[str, list[np.ndarray]] = {}
    details = {}
    for questions, hits in zip(by_task, moved, strict=True):
        details[f"{questions.task.name}/prompts"] = float(len(questions.prompts.sequences))
        details[f"{questions.task.name}/unaligned"] = float(questions.prompts.n_unaligned)
        changes = [change for n in counts for change in (str(n), f"random_{n}")]
        for owner, suffix in [*((name, change) for change in changes), (site, "row")]:
            scores = {target: _scores(questions, hits, weightings, owner, suffix, target) for target in questions.pairs}
            for target, (cause_R, isolation_R) in scores.items():
                about = f"{questions.task.name}/{questions.prompts.attributes[target]}"
                details[f"{about}/ravel_cause_{suffix}"] = float(cause_R[0])
                details[f"{about}/ravel_isolation_{suffix}"] = float(isolation_R[0])
            cause_R, isolation_R = (mean_of_known(side) for side in zip(*scores.values(), strict=True))
            found.setdefault(f"ravel_{suffix}", []).append((cause_R + isolation_R) / 2)
            if not suffix.startswith("random"):
                found.setdefault(f"ravel_cause_{suffix}", []).append(cause_R)
                found.setdefault(f"ravel_isolation_{suffix}", []).append(isolation_R)
    figures = {figure: mean_of_known(values) for figure, values in found.items()}
    n = sum(len(pairs.base) for questions in by_task for pairs in questions.pairs.values())
    return weightings.measured(figures, n, details)


def _scores(
    questions: Questions,
    hits: Mapping[_Move, Bool[np.ndarray, " P"]],
    weightings: Weightings,
    owner: str,
    change: str,
    target: int,
) -> tuple[Float[np.ndarray, " R"], Float[np.ndarray, " R"]]:
    """Cause and isolation of moving the latents of one attribute.

    A block is left out with every pair that has an entity of it on either side, as for any mean over pairs.
    """
    shares = {}
    for asked, pairs in questions.pairs.items():
        base, source = (
            weightings.weights(questions.task.documents[questions.prompts.entities[side]]) for side in pairs
        )
        shares[asked] = weighted_mean(hits[_Move(owner, change, target, asked)], base * source)
    return shares.pop(target), mean_of_known(list(shares.values()))
