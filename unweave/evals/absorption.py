"""Feature splitting and absorption: does a latent for a class stay silent where a narrower one took its place?

After Chanin et al. 2024 (A is for Absorption, arXiv 2409.14507) and SAEBench (2503.09532). The classes are first
letters of words, or any labels of tokens. For each class, with p its logistic probe's direction of length 1:

    main latents  the k* largest positive weights of an L1 probe on latents; k* grows from 1 while logistic regression
                  on k latents has an F1 over 0.03 better than before; ``absorption_split`` is the mean k*
    shares        c_i = f_i (p.d_i), what latent i, of decoder row d_i, gives to P = x.p; cos_i = p.d_i / |d_i|

on examples of the class that the probe calls so, P > 0:

    full          1 where all main latents are silent, and the latent with the largest c_i has cos_i >= 0.025 and
                  c_i >= 0.4 P
    fraction      with m the sum of c_i over the main latents, and a that over the three largest c_i > 0 of the others
                  with cos_i >= 0.1:  0 if m >= P or a < 0.4 P;  1 if m <= 0;  else a' / (a' + m), a' = min(a, P - m)

A class counts if it has 20 examples and the probe has an F1 over 0.6. F1 that decide anything are those of a quarter of
the documents to learn from, which no probe learned from. A coder with no latents for the classes looks good here: read
``absorption_latent_f1`` beside it.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from unweave.evals.ablation import decoder
from unweave.evals.examples import Examples, Reader
from unweave.evals.first_letters import Prompt, letter_examples
from unweave.evals.measured import Measured, Weightings, mean_of_known, weighted_mean
from unweave.evals.pooled import check_ablatable
from unweave.evals.probes import Probe, f1, fit, sparse_weights
from unweave.evals.tasks import LabelledTokens
from unweave.metrics.base import N_BLOCKS, Definition

DEFINITIONS = (
    Definition(
        "absorption_full",
        "Full absorption",
        "Share of the examples of a class on which its own latents are silent and another latent stands for it.",
        "near 0, where the latents tell the class at all",
    ),
    Definition(
        "absorption_fraction",
        "Absorption fraction",
        "Share of what a class's latents should give to its direction that other latents give in their place.",
        "near 0, where the latents tell the class at all",
    ),
    Definition(
        "absorption_split",
        "Latents per class",
        "Number of latents among which a class is split, mean over classes.",
        "near 1",
    ),
    Definition(
        "absorption_latent_f1",
        "F1 of the class's latents",
        "How well a probe on the latents of a class tells it from the others, mean over classes.",
        "near that of the row; where it is low, little absorption says nothing",
    ),
    Definition(
        "absorption_row_f1",
        "F1 of the row",
        "How well a probe on the whole row tells a class from the others, mean over the classes that count.",
        "to compare with",
    ),
    Definition(
        "absorption_classes",
        "Classes that count",
        "Classes with enough examples which a probe on the row tells apart.",
        "most of them; with none there are no other figures",
    ),
)
_SILENT = 1e-8
_FEWEST = 20
_PROBE_F1 = 0.6
_BETTER_BY = 0.03
_MOST_LATENTS = 10
_PENALTY = 0.01
_FULL_COSINE, _COSINE = 0.025, 0.1
_SHARE = 0.4
_ABSORBERS = 3


class ClassLatents(NamedTuple):
    """The direction of a class in rows, and the latents that stand for it."""

    label: int
    row_probe: Probe
    main: Int[np.ndarray, " k"]
    latent_probe: Probe
    """Of the main latents."""


class Absorbed(NamedTuple):
    """Of each example: whether its class was fully absorbed, and which fraction was."""

    full: Bool[np.ndarray, " N"]
    fraction: Float[np.ndarray, " N"]


def measure_absorption(
    reader: Reader,
    task: LabelledTokens | None = None,
    *,
    prompt: Prompt = "none",
    seed: int = 0,
) -> dict[str, Measured]:
    """The figures of several coders, on first letters of the vocabulary's words or on labelled tokens of texts.

    ``prompt`` is for words alone. Raises ``UserError`` for coders that write elsewhere than they read.
    """
    check_ablatable(reader.coders)
    if task is None:
        examples = letter_examples(reader.model, reader.coders, prompt=prompt, seed=seed)
    else:
        examples = reader.examples(task)
    return {name: absorption_figures(examples, name, decoder(coder)) for name, coder in reader.coders.items()}


def absorption_figures(examples: Examples, coder: str, W_dec: Float[np.ndarray, "L D"]) -> Measured:
    """The figures of one coder, given what it made of labelled tokens; NaN where no class counts."""
    rows, latents = examples.pooled.rows[coder], examples.pooled.latents[coder]
    check = np.flatnonzero(examples.is_test)
    weightings = Weightings.of([examples.documents[check]])
    weights_RN = weightings.weights(examples.documents[check])
    every = [class_latents(examples, coder, label) for label in range(len(examples.classes))]
    classes = [its for its in every if its is not None]
    found: dict[str, list[np.ndarray]] = {d.name: [] for d in DEFINITIONS if d.name != "absorption_classes"}
    details = {}
    for its in classes:
        of_class = _of_class(its, examples.labels[check] == its.label, rows[check], latents[check], W_dec, weights_RN)
        for figure, values in of_class.items():
            found[figure].append(values)
            details[f"{examples.task}/{examples.classes[its.label]}/{figure}"] = float(values[0])
    nothing = np.full(len(weights_RN), np.nan)
    figures = {name: mean_of_known(values) if values else nothing for name, values in found.items()}
    figures["absorption_classes"] = np.full(len(weights_RN), float(len(classes)))
    measured = weightings.measured(figures, len(check), details)
    if measured.standard_errors and len(classes) > 1:  # the measured examples do not decide it, the classes do
        sizes = np.array([len(its.main) for its in classes])
        measured.standard_errors["absorption_split"] = float(sizes.std(ddof=1) / len(sizes) ** 0.5)
    return measured


def _of_class(
    its: ClassLatents,
    is_class_N: Bool[np.ndarray, " N"],
    rows: Float[np.ndarray, "N D"],
    latents: csr_array,
    W_dec: Float[np.ndarray, "L D"],
    weights_RN: Float[np.ndarray, "R N"],
) -> dict[str, Float[np.ndarray, " R"]]:
    """What the measured examples say of one class."""
    said_row = its.row_probe.logits(rows) > 0
    said_latents = its.latent_probe.logits(latents[:, its.main].toarray()) > 0
    hit = np.flatnonzero(is_class_N & said_row)
    absorbed = absorption(rows[hit], latents[hit], W_dec, its.row_probe.weights, its.main)
    return {
        "absorption_full": weighted_mean(absorbed.full, weights_RN[:, hit]),
        "absorption_fraction": weighted_mean(absorbed.fraction, weights_RN[:, hit]),
        "absorption_split": np.full(len(weights_RN), float(len(its.main))),
        "absorption_latent_f1": _weighted_f1(said_latents, is_class_N, weights_RN),
        "absorption_row_f1": _weighted_f1(said_row, is_class_N, weights_RN),
    }


def class_latents(examples: Examples, coder: str, label: int) -> ClassLatents | None:
    """A class's direction and main latents, found on the documents to learn from; None where it does not count."""
    rows, latents = examples.pooled.rows[coder], examples.pooled.latents[coder]
    is_class = examples.labels == label
    is_part = (examples.documents // N_BLOCKS) % 4 == 0
    learn, decide = (np.flatnonzero(~examples.is_test & (is_part == side)) for side in (False, True))
    if is_class.sum() < _FEWEST or not is_class[learn].any() or not is_class[decide].any():
        return None
    row_probe = fit(rows[learn], is_class[learn], balanced=True)
    if f1(row_probe.logits(rows[decide]) > 0, is_class[decide]) <= _PROBE_F1:
        return None
    weights_L = sparse_weights(latents[learn], is_class[learn], _PENALTY)
    ranked = np.argsort(-weights_L, kind="stable")[:_MOST_LATENTS]
    ranked = ranked[weights_L[ranked] > 0]
    if not len(ranked):
        ranked = np.argmax(weights_L, keepdims=True)
    best, chosen = -np.inf, (ranked[:1], row_probe)
    for k in range(1, len(ranked) + 1):
        columns = latents[:, ranked[:k]].toarray()
        probe = fit(columns[learn], is_class[learn], balanced=True)
        score = f1(probe.logits(columns[decide]) > 0, is_class[decide])
        if score <= best + _BETTER_BY:
            break
        best, chosen = score, (ranked[:k], probe)
    return ClassLatents(label, row_probe, *chosen)


def absorption(
    rows: Float[np.ndarray, "N D"],
    latents: csr_array,
    W_dec: Float[np.ndarray, "L D"],
    direction_D: Float[np.ndarray, " D"],
    main: Int[np.ndarray, " k"],
) -> Absorbed:
    """Full absorption and its fraction for examples that are of the class."""
    unit_D = direction_D / np.linalg.norm(direction_D)
    written_L = W_dec @ unit_D
    cosine_L = written_L / np.maximum(np.linalg.norm(W_dec, axis=1), 1e-30)
    projection_N = rows @ unit_D
    is_main = np.isin(np.arange(len(W_dec)), main)
    full, fraction = np.zeros(len(rows), dtype=bool), np.zeros(len(rows))
    for n in range(len(rows)):
        entries = slice(latents.indptr[n], latents.indptr[n + 1])
        ids, values = latents.indices[entries], latents.data[entries]
        shares, P = values * written_L[ids], projection_N[n]
        if P <= 0 or not len(ids):
            continue
        top = shares.argmax()
        is_silent = not (values[is_main[ids]] >= _SILENT).any()
        full[n] = is_silent and cosine_L[ids[top]] >= _FULL_COSINE and shares[top] >= _SHARE * P
        others = shares[~is_main[ids] & (cosine_L[ids] >= _COSINE) & (shares > 0)]
        fraction[n] = absorbed_fraction(shares[is_main[ids]].sum(), np.sort(others)[-_ABSORBERS:].sum(), P)
    return Absorbed(full, fraction)


def absorbed_fraction(main: float, absorbers: float, projection: float) -> float:
    """The fraction, given what the main latents and the absorbers give to the projection."""
    if main >= projection or absorbers < _SHARE * projection:
        return 0.0
    if main <= 0:
        return 1.0
    absorbers = min(absorbers, projection - main)
    return absorbers / (absorbers + main)


def _weighted_f1(
    said_N: Bool[np.ndarray, " N"], true_N: Bool[np.ndarray, " N"], weights_RN: Float[np.ndarray, "R N"]
) -> Float[np.ndarray, " R"]:
    both, either = weights_RN @ (said_N & true_N), weights_RN @ said_N + weights_RN @ true_N
    return 2 * both / np.maximum(either, 1)
