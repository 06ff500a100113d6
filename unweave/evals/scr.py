"""Spurious correlation removal: do few latents carry what a probe should not have learned? (SAEBench, 2503.09532).

Texts have a target label and a spurious one. A biased probe learns where the two always go together, say code of one
package against docstrings of another; an oracle probe learns the target where both labels are balanced.

    rank   |E(l)| = |mean of f_l over one spurious class - mean over the other| |w_s.d_l| for the probe w_s of the
           spurious label, learned where both labels are balanced
    scr    (A_ablated - A_biased) / (A_oracle - A_biased): accuracies on the target where both labels are balanced, the
           ablated one without the first n latents, error kept; 0 where the oracle is less than 0.001 better

There are two ways for labels to go together; the one whose biased probe does worse on the balanced texts to learn from
is taken. 1: the bias is gone; 0: nothing is gained; negative: the target was harmed.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from unweave.evals.ablation import COUNTS, ablate, decoder, effects, usable_counts
from unweave.evals.examples import Examples, Reader
from unweave.evals.measured import Measured, Weightings, weighted_mean
from unweave.evals.pooled import check_ablatable
from unweave.evals.probes import Probe, fit
from unweave.evals.tasks import CrossedTexts, some_of_each
from unweave.metrics.base import Definition

_SMALLEST_GAIN = 0.001


def definitions(counts: Sequence[int] = COUNTS) -> tuple[Definition, ...]:
    """What the figures mean."""
    return tuple(
        Definition(
            f"scr_{n}",
            f"Spurious correlation removed, {n} latents",
            f"Share of what a probe lost by learning a spurious label that it gains back when the {n} latents of that "
            "label are taken out.",
            "well over that of random latents, up to 1; negative where the target was harmed",
        )
        for n in counts
    )


def measure_scr(
    reader: Reader,
    tasks: Sequence[CrossedTexts],
    *,
    counts: Sequence[int] = COUNTS,
) -> dict[str, Measured]:
    """The figures of several coders, mean over pairs of labels.

    Counts that a coder has no latents for are left out of its figures. Raises ``UserError`` for coders that write
    elsewhere.
    """
    return measure_crossed(reader, tasks, scr_figures, counts)


def measure_crossed(
    reader: Reader,
    tasks: Sequence[CrossedTexts],
    figures_of: Callable[..., Measured],
    counts: Sequence[int],
) -> dict[str, Measured]:
    """What ``scr_figures`` or figures of its kind say of each coder, on one pass over the texts."""
    check_ablatable(reader.coders)
    crossed = [(reader.examples(task.target), task) for task in tasks]
    return {
        name: figures_of(crossed, name, decoder(coder), counts=usable_counts(counts, coder))
        for name, coder in reader.coders.items()
    }


def scr_figures(
    crossed: Sequence[tuple[Examples, CrossedTexts]],
    coder: str,
    W_dec: Float[np.ndarray, "L D"],
    *,
    counts: Sequence[int],
) -> Measured:
    """The figures of one coder, given what it made of the texts of each pair of labels."""
    balanced = [balanced_places(task) for _, task in crossed]
    checked = [task.target.documents[check] for (_, task), (_, check) in zip(crossed, balanced, strict=True)]
    weightings = Weightings.of(checked)
    found: dict[str, list[np.ndarray]] = {f"scr_{n}": [] for n in counts}
    details = {}
    for (examples, task), places in zip(crossed, balanced, strict=True):
        target = task.target.labels == 1
        pair = Pair.of(examples, coder, target, task.spurious.labels == 1, *places)
        weights_RN = weightings.weights(task.target.documents[pair.check])
        before_R = pair.accuracy(pair.biased.logits(pair.rows), weights_RN)
        oracle_R = pair.accuracy(pair.oracle.logits(pair.rows), weights_RN)
        details[f"{task.name}/biased"], details[f"{task.name}/oracle"] = float(before_R[0]), float(oracle_R[0])
        ablated = ablate([pair.biased], pair.rows, pair.latents, W_dec, pair.ranked(W_dec, max(counts)), counts)
        for n, logits_N1 in ablated.after.items():
            after_R = pair.accuracy(logits_N1[:, 0], weights_RN)
            score_R = gained_back(before_R, after_R, oracle_R)
            found[f"scr_{n}"].append(score_R)
            details[f"{task.name}/scr_{n}"] = float(score_R[0])
    figures = {name: np.mean(values, axis=0) for name, values in found.items()}
    return weightings.measured(figures, sum(map(len, checked)), details)


class Pair(NamedTuple):
    """The probes of one pair of labels, and what they look at."""

    rows: Float[np.ndarray, "N D"]
    latents: csr_array
    target: Bool[np.ndarray, " N"]
    spurious: Bool[np.ndarray, " N"]
    learn: Int[np.ndarray, " M"]
    """Places where both labels are balanced, to learn from and to measure on."""
    check: Int[np.ndarray, " K"]
    is_confounded: Bool[np.ndarray, " N"]
    """Where the labels go together in the way that the biased probe learned from."""
    biased: Probe
    oracle: Probe
    of_spurious: Probe

    @staticmethod
    def of(
        examples: Examples,
        coder: str,
        target: Bool[np.ndarray, " N"],
        spurious: Bool[np.ndarray, " N"],
        learn: Int[np.ndarray, " M"],
        check: Int[np.ndarray, " K"],
    ) -> "Pair":
        """Learn the probes; of the two ways to be biased, the one that does worse where labels are balanced."""
        rows = examples.pooled.rows[coder]
        biased = []
        for together in (True, False):
            is_confounded = (target == spurious) == together
            confounded = learn[is_confounded[learn]]
            probe = fit(rows[confounded], target[confounded])
            biased.append((float(((probe.logits(rows[learn]) > 0) == target[learn]).mean()), is_confounded, probe))
        _, is_confounded, probe = min(biased, key=lambda way: way[0])
        others = (fit(rows[learn], label[learn]) for label in (target, spurious))
        latents = examples.pooled.latents[coder]
        return Pair(rows, latents, target, spurious, learn, check, is_confounded, probe, *others)

    def ranked(self, W_dec: Float[np.ndarray, "L D"], at_most: int) -> Int[np.ndarray, " K"]:
        """Latents by their effect on the spurious label's probe, those without any left out."""
        effects_L = np.abs(effects(self.of_spurious, self.latents[self.learn], self.spurious[self.learn], W_dec))
        ranked = np.argsort(-effects_L, kind="stable")[:at_most]
        return ranked[effects_L[ranked] > 0]

    def accuracy(
        self, logits_N: Float[np.ndarray, " N"], weights_RK: Float[np.ndarray, "R K"]
    ) -> Float[np.ndarray, " R"]:
        """Of the target, where both labels are balanced."""
        return weighted_mean((logits_N[self.check] > 0) == self.target[self.check], weights_RK)


def balanced_places(task: CrossedTexts) -> tuple[Int[np.ndarray, " M"], Int[np.ndarray, " K"]]:
    """Texts to learn from and to measure on, as many of each combination of the two labels."""
    cells, is_test = 2 * task.target.labels + task.spurious.labels, task.target.is_test
    places = []
    for side in (False, True):
        own = np.flatnonzero(is_test == side)
        places.append(own[some_of_each(cells[own], int(np.bincount(cells[own], minlength=4).min()))])
    return places[0], places[1]


def gained_back(
    before_R: Float[np.ndarray, " R"], after_R: Float[np.ndarray, " R"], oracle_R: Float[np.ndarray, " R"]
) -> Float[np.ndarray, " R"]:
    """Share of the oracle's lead that ablation gained; 0 where there is no lead."""
    lead_R = oracle_R - before_R
    return np.where(lead_R < _SMALLEST_GAIN, 0.0, (after_R - before_R) / np.where(lead_R == 0, 1.0, lead_R))
