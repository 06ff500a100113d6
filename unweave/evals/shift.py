"""Does taking out latents of a spurious label mend a classifier that learned it? SHIFT's score.

After Marks et al. 2024 (Sparse Feature Circuits, arXiv 2403.19647), with latents chosen by their effect on a probe of
the spurious label, as in SCR, in the place of a person's choice. A classifier of mean rows learns the target where the
two labels always go together. Measured where all four combinations are equally frequent, with the first n latents taken
out and the error kept:

    target    share of texts whose target it tells
    spurious  share of texts where what it says is the spurious label, counted from chance: |share - 1/2| 2
    worst     the lowest of the four combinations' target shares
    retrained the target share of a classifier that learned again, on rows without the latents

Beside it stand the classifier before anything is taken out, and an oracle that learned where both labels are balanced.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from unweave.evals.ablation import COUNTS
from unweave.evals.examples import Examples, Reader
from unweave.evals.measured import Measured, Weightings, mean_of_known, weighted_mean
from unweave.evals.probes import fit
from unweave.evals.scr import Pair, balanced_places, measure_crossed
from unweave.evals.tasks import CrossedTexts
from unweave.metrics.base import Definition

_TOLD = {
    "target": ("Target told", "Share of texts whose target the classifier tells", "near the oracle's"),
    "spurious": ("Spurious label followed", "How far the classifier follows the spurious label, 0 to 1", "near 0"),
    "worst": ("Worst combination", "Share of texts told in the worst combination of the two labels", "near the mean"),
}


def definitions(counts: Sequence[int] = COUNTS) -> tuple[Definition, ...]:
    """What the figures mean."""
    found = []
    cases = {"before": "before anything is taken out", "oracle": "of one that learned from balanced labels"}
    cases |= {str(n): f"once {n} latents of the spurious label are taken out" for n in counts}
    for case, when in cases.items():
        for figure, (title, meaning, good) in _TOLD.items():
            found.append(Definition(f"shift_{figure}_{case}", f"{title}, {case}", f"{meaning}, {when}.", good))
    for n in counts:
        meaning = f"Share of texts whose target a classifier tells that learned again without the {n} latents."
        found.append(
            Definition(f"shift_retrained_{n}", f"Target told, learned again, {n}", meaning, "near the oracle's")
        )
    return tuple(found)


def measure_shift(
    reader: Reader,
    tasks: Sequence[CrossedTexts],
    *,
    counts: Sequence[int] = COUNTS,
) -> dict[str, Measured]:
    """The figures of several coders, mean over pairs of labels.

    Counts that a coder has no latents for are left out of its figures. Raises ``UserError`` for coders that write
    elsewhere.
    """
    return measure_crossed(reader, tasks, shift_figures, counts)


def shift_figures(
    crossed: Sequence[tuple[Examples, CrossedTexts]],
    coder: str,
    W_dec: Float[np.ndarray, "L D"],
    *,
    counts: Sequence[int],
) -> Measured:
    """The figures of one coder, given what it made of the texts of each pair of labels."""
    places = [balanced_places(task) for _, task in crossed]
    checked = [task.target.documents[check] for (_, task), (_, check) in zip(crossed, places, strict=True)]
    weightings = Weightings.of(checked)
    found: dict[str, list[np.ndarray]] = {}
    for (examples, task), (learn, check) in zip(crossed, places, strict=True):
        labels = task.target.labels == 1, task.spurious.labels == 1
        pair = Pair.of(examples, coder, *labels, learn, check)
        weights_RN = weightings.weights(task.target.documents[check])
        for name, said_N in _said(pair, W_dec, counts).items():
            figure, case = name.split("_")
            told = told_of(said_N[check], pair.target[check], pair.spurious[check], weights_RN)
            if figure == "retrained":
                told = {"retrained": told["target"]}
            for which, values_R in told.items():
                found.setdefault(f"shift_{which}_{case}", []).append(values_R)
    figures = {name: mean_of_known(values) for name, values in found.items()}
    return weightings.measured(figures, sum(map(len, checked)))


def told_of(
    said_N: Bool[np.ndarray, " N"],
    target_N: Bool[np.ndarray, " N"],
    spurious_N: Bool[np.ndarray, " N"],
    weights_RN: Float[np.ndarray, "R N"],
) -> dict[str, Float[np.ndarray, " R"]]:
    """How far a classifier tells the target, follows the spurious label, and fails a combination."""
    is_right, follows = said_N == target_N, said_N == spurious_N
    cells = 2 * target_N + spurious_N
    of_cells = [weighted_mean(is_right[cells == cell], weights_RN[:, cells == cell]) for cell in range(4)]
    return {
        "target": weighted_mean(is_right, weights_RN),
        "spurious": np.abs(2 * weighted_mean(follows, weights_RN) - 1),
        "worst": np.min(of_cells, axis=0),
    }


def _said(pair: Pair, W_dec: Float[np.ndarray, "L D"], counts: Sequence[int]) -> dict[str, Bool[np.ndarray, " N"]]:
    """What each classifier says of all texts, by figure and case."""
    said = {"all_before": pair.biased.logits(pair.rows) > 0, "all_oracle": pair.oracle.logits(pair.rows) > 0}
    ranked = pair.ranked(W_dec, max(counts))
    together = pair.learn[pair.is_confounded[pair.learn]]
    for n in counts:
        rows = pair.rows - pair.latents[:, ranked[:n]].toarray() @ W_dec[ranked[:n]]
        said[f"all_{n}"] = pair.biased.logits(rows) > 0
        said[f"retrained_{n}"] = fit(rows[together], pair.target[together]).logits(rows) > 0
    return said
