"""k-sparse probing: how well one, two or five latents tell a class apart (Gurnee et al. 2023, arXiv 2305.01610).

For each class of each task, against as many examples of the other classes:

    rank    |mean of f_i over the class - mean of f_i over the others|, on the texts to learn from
    probe   logistic regression on the k first latents, learned from the same texts
    figure  its accuracy on the texts to measure on, mean over classes and tasks; chance is 1/2

Beside it stand the k first dimensions of the row itself, ranked alike, all dimensions, and all latents. Examples are
means over the content tokens of a text, or single labelled tokens. Nothing is chosen by what is measured on.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from unweave.evals.examples import Examples, Reader
from unweave.evals.measured import Measured, Weightings, weighted_mean
from unweave.evals.probes import Columns, fit, mean_difference, one_against_rest
from unweave.evals.tasks import LabelledTexts, LabelledTokens
from unweave.metrics.base import Definition

KS = (1, 2, 5)


class Problem(NamedTuple):
    """One class against the others: places of examples, in equal numbers on each side."""

    name: str
    learn: Int[np.ndarray, " M"]
    check: Int[np.ndarray, " N"]
    learn_is_positive: Bool[np.ndarray, " M"]
    check_is_positive: Bool[np.ndarray, " N"]


def definitions(ks: Sequence[int] = KS) -> tuple[Definition, ...]:
    """What the figures mean."""
    found = []
    for k in ks:
        latents = "latent" if k == 1 else f"{k} latents"
        found += [
            Definition(
                f"probe_k{k}",
                f"Probe on {latents}",
                f"Accuracy with which the {latents} whose means differ most tell a class from the others, on documents "
                "that were not learned from.",
                "well over the same number of dimensions of the row, and near the probe on the whole row",
            ),
            Definition(
                f"probe_row_k{k}",
                f"Probe on {k} of the row's dimensions",
                f"The same with the {k} dimensions of the row whose means differ most, which no coder is needed for.",
                "a floor to compare with",
            ),
        ]
    return (
        *found,
        Definition(
            "probe_row",
            "Probe on the row",
            "The same with all dimensions of the row.",
            "a ceiling to compare with",
        ),
        Definition(
            "probe_codes",
            "Probe on all latents",
            "The same with all latents at once.",
            "near the probe on the row; lower where the coder lost what the task needs",
        ),
    )


def measure_probing(
    reader: Reader,
    tasks: Sequence[LabelledTexts | LabelledTokens],
    *,
    ks: Sequence[int] = KS,
    seed: int = 0,
) -> dict[str, Measured]:
    """The figures of several coders; ``seed`` draws the examples that stand against each class."""
    examples = [reader.examples(task) for task in tasks]
    return {name: probing_figures(examples, name, ks=ks, seed=seed) for name in reader.coders}


def probing_figures(examples: Sequence[Examples], coder: str, *, ks: Sequence[int] = KS, seed: int = 0) -> Measured:
    """The figures of one coder, given what it made of the tasks."""
    problems = [(task, list(one_class_each(task, seed))) for task in examples]
    measured_on = [task.documents[problem.check] for task, of_task in problems for problem in of_task]
    weightings = Weightings.of(measured_on)
    found: dict[str, list[np.ndarray]] = {}
    details = {}
    for task, of_task in problems:
        rows, latents = task.pooled.rows[coder], task.pooled.latents[coder]
        for problem in of_task:
            weights_RN = weightings.weights(task.documents[problem.check])
            for name, columns in _columns(rows, latents, problem, ks):
                accuracy_R = _accuracy(columns, problem, weights_RN)
                found.setdefault(name, []).append(accuracy_R)
                details[f"{task.task}/{problem.name}/{name}"] = float(accuracy_R[0])
    figures = {name: np.mean(accuracies, axis=0) for name, accuracies in found.items()}
    return weightings.measured(figures, sum(map(len, measured_on)), details)


def one_class_each(examples: Examples, seed: int, *, both: bool = False) -> Iterator[Problem]:
    """Each class against the others; of two classes, the second against the first, and the other way if ``both``."""
    generator = np.random.default_rng(seed)
    learn, check = np.flatnonzero(~examples.is_test), np.flatnonzero(examples.is_test)
    for label, name in enumerate(examples.classes):
        if len(examples.classes) == 2 and label == 0 and not both:
            continue
        sides = [side[one_against_rest(examples.labels[side], label, generator)] for side in (learn, check)]
        yield Problem(name, *sides, *(examples.labels[side] == label for side in sides))


def _columns(
    rows: Float[np.ndarray, "N D"], latents: Columns, problem: Problem, ks: Sequence[int]
) -> Iterator[tuple[str, Columns]]:
    """What the probes of a problem see, by the name of the figure."""
    for prefix, columns in (("probe", latents), ("probe_row", rows)):
        differences_C = mean_difference(columns[problem.learn], problem.learn_is_positive)
        ranked = np.argsort(-np.abs(differences_C), kind="stable")
        for k in ks:
            chosen = columns[:, ranked[:k]]
            yield f"{prefix}_k{k}", chosen if isinstance(chosen, np.ndarray) else chosen.toarray()
    yield "probe_row", rows
    yield "probe_codes", latents


def _accuracy(columns: Columns, problem: Problem, weights_RN: Float[np.ndarray, "R N"]) -> Float[np.ndarray, " R"]:
    probe = fit(columns[problem.learn], problem.learn_is_positive)
    said_N = probe.logits(columns[problem.check]) > 0
    return weighted_mean(said_N == problem.check_is_positive, weights_RN)
