"""Do latents help a probe where data are plentiful, scarce or unbalanced?

SAE-Probes (Kantamneni et al. 2025, arXiv 2502.16681). Examples are the last tokens of texts. For each class of a task:

    rank       |difference of the class means of f_i / (mean of f_i where it is not 0)|, on the examples to learn from
    probe      logistic regression on the k first latents, C chosen by AUC on a part that was not learned from
    normal     learned from all examples, as many of the class as of the others
    scarcity   from 2, 4, 8, ... examples, half of them of the class; mean over the numbers
    imbalance  from a fixed number of examples with 5 to 95 % of the class; mean over the shares

The figure is the AUC on balanced examples of other documents; chance is 1/2. ``added`` is what a coder adds: with
the probe that validation likes best among all, less that without the coder's. Nothing is chosen by what is measured on.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from unweave.errors import UserError
from unweave.evals.examples import Examples, Reader
from unweave.evals.measured import Measured, Weightings
from unweave.evals.probes import Columns, aucs, fit_validated, mean_difference
from unweave.evals.probing import Problem, one_class_each
from unweave.evals.tasks import LabelledTexts
from unweave.metrics.base import Definition

KS = (1, 5)
REGIMES = ("normal", "scarcity", "imbalance")
SHARES = (0.05, 0.25, 0.75, 0.95)
_LARGEST = 1024


def definitions(ks: Sequence[int] = KS) -> tuple[Definition, ...]:
    """What the figures mean."""
    told = {
        "normal": "learned from all examples there are",
        "scarcity": "learned from 2 to 1024 examples, mean over the numbers",
        "imbalance": "learned from 5 to 95 % examples of the class, mean over the shares",
    }
    found = []
    for regime, how in told.items():
        for k in ks:
            found.append(
                Definition(
                    f"auc_{regime}_k{k}",
                    f"AUC of {k} latents, {regime}",
                    f"How often a probe on the best {k} latents ranks a text of a class over another text, {how}.",
                    "near that of the whole row",
                )
            )
        found.append(
            Definition(
                f"auc_{regime}_row",
                f"AUC of the row, {regime}",
                f"The same of the whole row, {how}.",
                "to compare with",
            )
        )
        found.append(
            Definition(
                f"auc_{regime}_added",
                f"AUC added by latents, {regime}",
                "AUC of whichever probe validation likes best, less the AUC of the probe on the row. Only over 0 do "
                "latents help.",
                "over its error; 0 is usual",
            )
        )
    return tuple(found)


def measure_sae_probes(
    reader: Reader,
    tasks: Sequence[LabelledTexts],
    *,
    ks: Sequence[int] = KS,
    regimes: Sequence[str] = REGIMES,
    seed: int = 0,
) -> dict[str, Measured]:
    """The figures of several coders; ``seed`` draws examples and validation parts."""
    if unknown := set(regimes) - set(REGIMES):
        raise UserError(f"there is no regime {unknown.pop()!r}; choose from {', '.join(REGIMES)}")
    examples = [reader.examples(task, how="last") for task in tasks]
    return {name: sae_probe_figures(examples, name, ks=ks, regimes=regimes, seed=seed) for name in reader.coders}


def sae_probe_figures(
    examples: Sequence[Examples],
    coder: str,
    *,
    ks: Sequence[int] = KS,
    regimes: Sequence[str] = REGIMES,
    seed: int = 0,
) -> Measured:
    """The figures of one coder, given what it made of the last tokens."""
    problems = [(task, list(one_class_each(task, seed))) for task in examples]
    measured_on = [task.documents[problem.check] for task, of_task in problems for problem in of_task]
    weightings = Weightings.of(measured_on)
    found: dict[str, list[np.ndarray]] = {}
    details = {}
    generator = np.random.default_rng(seed)
    for task, of_task in problems:
        for problem in of_task:
            weights_RN = weightings.weights(task.documents[problem.check])
            for regime in regimes:
                judged = {
                    condition: _judged(task, coder, problem, learn, ks, weights_RN, generator)
                    for condition, learn in _conditions(regime, problem, generator)
                }
                for name, auc_R in _means(judged).items():
                    found.setdefault(f"auc_{regime}_{name}", []).append(auc_R)
                for condition, of_condition in judged.items():
                    place = f"{task.task}/{problem.name}/{regime}/{condition}"
                    details |= {f"{place}/{name}": float(auc_R[0]) for name, auc_R in of_condition.items()}
    figures = {name: np.mean(values, axis=0) for name, values in found.items()}
    return weightings.measured(figures, sum(map(len, measured_on)), details)


def _means(judged: Mapping[str, Mapping[str, Float[np.ndarray, " R"]]]) -> dict[str, Float[np.ndarray, " R"]]:
    """Of each probe over the conditions of a regime."""
    names = next(iter(judged.values()))
    return {name: np.mean([of_condition[name] for of_condition in judged.values()], axis=0) for name in names}


def normalised_difference(latents: csr_array, is_positive_N: np.ndarray) -> Float[np.ndarray, " L"]:
    """Difference of the class means, over the mean of each latent where it is active; 0 for one that never is."""
    sums_L = np.asarray(latents.sum(axis=0)).ravel()
    means_L = sums_L / np.maximum(np.bincount(latents.indices, minlength=len(sums_L)), 1)
    return mean_difference(latents, is_positive_N) / np.where(means_L == 0, 1, means_L)


def _judged(
    task: Examples,
    coder: str,
    problem: Problem,
    learn: Int[np.ndarray, " M"],
    ks: Sequence[int],
    weights_RN: Float[np.ndarray, "R N"],
    generator: np.random.Generator,
) -> dict[str, Float[np.ndarray, " R"]]:
    """The AUC of every probe that learned from some of a problem's examples."""
    latents, is_positive = task.pooled.latents[coder], problem.learn_is_positive[learn]
    places = problem.learn[learn]
    ranked = np.argsort(-np.abs(normalised_difference(latents[places], is_positive)), kind="stable")
    seen: dict[str, Columns] = {"row": task.pooled.rows[coder]}
    seen |= {f"k{k}": latents[:, ranked[:k]].toarray() for k in ks}
    judged, validated = {}, {}
    for name, columns in seen.items():
        probe, validated[name] = fit_validated(columns[places], is_positive, generator)
        judged[name] = aucs(probe.logits(columns[problem.check]), problem.check_is_positive, weights_RN)
    best = max(seen, key=lambda name: validated[name])  # of equals the row, which comes first
    return judged | {"added": judged[best] - judged["row"]}


def _conditions(
    regime: str, problem: Problem, generator: np.random.Generator
) -> Iterator[tuple[str, Int[np.ndarray, " M"]]]:
    """Places among the examples to learn from, by what sets each case of a regime apart."""
    positive, negative = (np.flatnonzero(problem.learn_is_positive == side) for side in (True, False))
    n_each = min(len(positive), len(negative))
    if regime == "normal":
        yield "all", np.arange(len(problem.learn))
    elif regime == "scarcity":
        n = 1
        while n <= min(n_each, _LARGEST // 2):
            yield f"{2 * n}", _drawn(positive, n, negative, n, generator)
            n *= 2
    else:
        for share in SHARES:
            n = max(1, round(share * n_each))
            yield f"{share:.0%}", _drawn(positive, n, negative, max(1, n_each - n), generator)


def _drawn(
    positive: Int[np.ndarray, " P"],
    n_positive: int,
    negative: Int[np.ndarray, " Q"],
    n_negative: int,
    generator: np.random.Generator,
) -> Int[np.ndarray, " M"]:
    chosen = [generator.permutation(positive)[:n_positive], generator.permutation(negative)[:n_negative]]
    return np.sort(np.concatenate(chosen))
