"""Targeted probe perturbation: do few latents carry one class and no other? (SAEBench, Karvonen et al. 2025).

After arXiv 2503.09532. For the classes i of a task, with a probe w_i on mean rows for each class against the others:

    rank   effect E_i(l) = max(0, mean of f_l over class i - mean over the others) (w_i.d_l), largest first
    A_i    accuracy of probe i; A_ij that of probe j once the first n latents of class i are taken out, error kept
    tpp    mean_i [ (A_i - A_ii) - mean_{j != i} (A_j - A_ij) ]

The first term is the intended effect, the second the unintended one. A latent whose effect is not positive is never
taken out. Latents that are the classes themselves bring A_ii to 1/2 and leave A_ij alone. Read beside scr and probing:
on known truth TPP fell as training improved (Chanin 2026, 2605.18229).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from unweave.evals.ablation import COUNTS, ablate, decoder, usable_counts
from unweave.evals.examples import Examples, Reader
from unweave.evals.measured import Measured, Weightings, weighted_mean
from unweave.evals.pooled import check_ablatable
from unweave.evals.probes import Probe, fit, mean_difference
from unweave.evals.probing import Problem, one_class_each
from unweave.evals.tasks import LabelledTexts, LabelledTokens
from unweave.metrics.base import Definition


def definitions(counts: Sequence[int] = COUNTS) -> tuple[Definition, ...]:
    """What the figures mean."""
    found = []
    for n in counts:
        found += [
            Definition(
                f"tpp_{n}",
                f"Targeted probe perturbation, {n} latents",
                f"What a class's probe loses in accuracy when the {n} latents of the class are taken out, less what "
                "the probes of other classes lose.",
                "well over that of random latents; 0.5 at most where the probe was perfect",
            ),
            Definition(
                f"tpp_intended_{n}",
                f"Intended effect, {n} latents",
                f"What a class's probe loses in accuracy when the {n} latents of the class are taken out.",
                "near what the probe is better than chance",
            ),
            Definition(
                f"tpp_unintended_{n}",
                f"Unintended effect, {n} latents",
                f"What the probes of other classes lose in accuracy when the {n} latents of a class are taken out.",
                "near 0",
            ),
        ]
    return tuple(found)


def measure_tpp(
    reader: Reader,
    tasks: Sequence[LabelledTexts | LabelledTokens],
    *,
    counts: Sequence[int] = COUNTS,
    seed: int = 0,
) -> dict[str, Measured]:
    """The figures of several coders, mean over tasks; ``seed`` draws the examples that stand against each class.

    Counts that a coder has no latents for are left out of its figures. Raises ``UserError`` for coders that write
    elsewhere.
    """
    check_ablatable(reader.coders)
    examples = [reader.examples(task) for task in tasks]
    return {
        name: tpp_figures(examples, name, decoder(coder), counts=usable_counts(counts, coder), seed=seed)
        for name, coder in reader.coders.items()
    }


def tpp_figures(
    examples: Sequence[Examples], coder: str, W_dec: Float[np.ndarray, "L D"], *, counts: Sequence[int], seed: int = 0
) -> Measured:
    """The figures of one coder, given what it made of the tasks."""
    problems = [(task, list(one_class_each(task, seed, both=True))) for task in examples]
    measured_on = [task.documents[problem.check] for task, of_task in problems for problem in of_task]
    weightings = Weightings.of(measured_on)
    found: dict[str, list[np.ndarray]] = {}
    for task, of_task in problems:
        for n, drops_RCC in _drops(task, coder, of_task, W_dec, counts, weightings).items():
            n_classes = len(of_task)
            intended_R = np.einsum("rii->r", drops_RCC) / n_classes
            unintended_R = (drops_RCC.sum((1, 2)) - n_classes * intended_R) / (n_classes * (n_classes - 1))
            found.setdefault(f"tpp_{n}", []).append(intended_R - unintended_R)
            found.setdefault(f"tpp_intended_{n}", []).append(intended_R)
            found.setdefault(f"tpp_unintended_{n}", []).append(unintended_R)
    figures = {name: np.mean(values, axis=0) for name, values in found.items()}
    details = {
        f"{task.task}/{name}": float(values[i][0]) for i, task in enumerate(examples) for name, values in found.items()
    }
    return weightings.measured(figures, sum(map(len, measured_on)), details)


def _drops(
    task: Examples,
    coder: str,
    problems: Sequence[Problem],
    W_dec: Float[np.ndarray, "L D"],
    counts: Sequence[int],
    weightings: Weightings,
) -> dict[int, Float[np.ndarray, "R C C"]]:
    """A_j - A_ij for every number of latents, class i by class j."""
    rows, latents = task.pooled.rows[coder], task.pooled.latents[coder]
    probes = [fit(rows[problem.learn], problem.learn_is_positive) for problem in problems]
    weights = [weightings.weights(task.documents[problem.check]) for problem in problems]

    def accuracies(logits_NC: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "R C"]:
        columns = []
        for j, problem in enumerate(problems):
            hits_N = (logits_NC[problem.check, j] > 0) == problem.check_is_positive
            columns.append(weighted_mean(hits_N, weights[j]))
        return np.stack(columns, axis=1)

    of_classes: dict[int, list[np.ndarray]] = {n: [] for n in counts}
    for probe, problem in zip(probes, problems, strict=True):
        ranked = _own_latents(probe, problem, latents[problem.learn], W_dec, max(counts))
        ablated = ablate(probes, rows, latents, W_dec, ranked, counts)
        before_RC = accuracies(ablated.before)
        for n, logits_NC in ablated.after.items():
            of_classes[n].append(before_RC - accuracies(logits_NC))
    return {n: np.stack(of_class, axis=1) for n, of_class in of_classes.items()}


def _own_latents(
    probe: Probe, problem: Problem, latents: csr_array, W_dec: Float[np.ndarray, "L D"], at_most: int
) -> Int[np.ndarray, " K"]:
    """Latents of positive effect on a class that is more active with them, the largest effect first."""
    differences_L = mean_difference(latents, problem.learn_is_positive)
    effects_L = differences_L.clip(min=0) * (W_dec @ probe.weights)
    ranked = np.argsort(-effects_L, kind="stable")[:at_most]
    return ranked[effects_L[ranked] > 0]
