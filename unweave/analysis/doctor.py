"""Read the figures of a run and say in plain words what is off and what to try."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

Level = Literal["good", "warning", "problem"]


Results = Mapping[str, Any]
Curve = Sequence[Mapping[str, float]]


class Finding(NamedTuple):
    """One thing that the figures say."""

    level: Level
    title: str
    advice: str


def diagnose(results: Results, curve: Curve) -> list[Finding]:
    """Findings, the gravest first, from the figures of results.json and the lines of metrics.jsonl."""
    checks = (
        _explained_variance,
        _l0,
        _dead,
        _dense,
        _first_position,
        _loss_recovered,
        _overfit,
        _threshold,
        _unfinished,
        _unhurt,
    )
    findings = [finding for check in checks if (finding := check(results, curve)) is not None]
    order: dict[Level, int] = {"problem": 0, "warning": 1, "good": 2}
    return sorted(findings, key=lambda finding: order[finding.level])


def _explained_variance(results: Results, _: Curve) -> Finding:
    value = results["explained_variance"]
    if value != value:
        return Finding("problem", "The measured rows do not vary", "Measure on other text, or choose another site.")
    if value >= 0.8:
        return Finding("good", f"Explained variance is {value:.2f}", "The reconstruction keeps most of what varies.")
    level: Level = "problem" if value < 0.6 else "warning"
    advice = "Train longer (training.rows), let more latents be active, or use more of them (coder.n_latents)."
    return Finding(level, f"Explained variance is {value:.2f}, under 0.80", advice)


def _l0(results: Results, _: Curve) -> Finding | None:
    value = results["l0"]
    if value > 200:
        advice = "So many active latents are hard to read. Lower coder.k, or raise coder.l1_coefficient."
        return Finding("problem" if value > 500 else "warning", f"L0 is {value:.0f}, over 200", advice)
    if value < 5:
        advice = "So few leave little room to reconstruct. Raise coder.k, or lower coder.l1_coefficient."
        return Finding("warning", f"L0 is {value:.1f}, under 5", advice)
    return None


def _dead(results: Results, _: Curve) -> Finding:
    value = results["dead_share"]
    measured = f"on {results['n_tokens']:,.0f} measured tokens"
    if value <= 0.1:
        return Finding("good", f"{value:.1%} of the latents are dead", f"Nearly all latents fired {measured}.")
    advice = (
        "Measure on more text first (evaluation.tokens): rare latents may only look dead. If they stay silent, "
        "lower training.lr, shorten training.dead_window, use fewer latents, or a coder that revives them (batch_topk)."
    )
    return Finding(
        "problem" if value > 0.2 else "warning", f"{value:.1%} of the latents never fired {measured}", advice
    )


def _dense(results: Results, _: Curve) -> Finding | None:
    value = results["dense_share"]
    if value <= 0.02:
        return None
    advice = "Latents that fire everywhere rarely mean one thing. Train longer, or look at what they fire on."
    return Finding("warning", f"{value:.1%} of the latents fire on more than 10 % of tokens", advice)


def _first_position(results: Results, _: Curve) -> Finding | None:
    value = results["first_position_share"]
    if value <= 0.05:
        return None
    advice = (
        "Huge rows at the first token drown the rest. Set packing.prepend_bos=true and exclude_special_tokens=true."
    )
    return Finding(
        "problem" if value > 0.3 else "warning", f"{value:.0%} of the error is at the first position", advice
    )


def _loss_recovered(results: Results, _: Curve) -> Finding | None:
    value = results["loss_recovered_mean"]
    damage = results["ce_mean_ablated"] - results["ce_clean"]
    if value != value or damage <= max(0.01, 2 * results["standard_errors"].get("ce_mean_ablated", 0.0)):
        return Finding(
            "warning", "Ablating the site does not change the model's loss", "Choose a site that the model uses."
        )
    if value >= 0.85:
        return Finding(
            "good", f"{value:.0%} of the loss is recovered", "The model goes on well from the reconstruction."
        )
    level: Level = "problem" if value < 0.6 else "warning"
    advice = (
        "The model needs what the coder drops. Let more latents be active, raise coder.n_latents, or try another layer."
    )
    return Finding(level, f"Only {value:.0%} of the loss is recovered against mean ablation", advice)


def _overfit(results: Results, curve: Curve) -> Finding | None:
    if not curve:
        return None
    last = [line["explained_variance"] for line in curve[-5:]]
    gap = sum(last) / len(last) - results["explained_variance"]
    if gap < 0.1:
        return None
    advice = (
        "The training text differs from the held-out text, or was read too often. Use more text, or check text.source."
    )
    return Finding("warning", f"Explained variance is {gap:.2f} lower on held-out text than in training", advice)


def _threshold(results: Results, curve: Curve) -> Finding | None:
    if not curve or "l1" in curve[-1]:
        return None
    trained = sum(line["l0"] for line in curve[-5:]) / len(curve[-5:])
    if 0.67 < results["l0"] / trained < 1.5:
        return None
    advice = "The threshold for use does not fit. Lower coder.threshold_decay for short runs, or check the text."
    return Finding("warning", f"L0 is {results['l0']:.1f} in use but was {trained:.1f} in training", advice)


def _unfinished(_: Results, curve: Curve) -> Finding | None:
    """The last tenth of the run should be flat."""
    if len(curve) < 20:
        return None
    tenth = max(2, len(curve) // 10)
    before = sum(line["explained_variance"] for line in curve[-2 * tenth : -tenth]) / tenth
    after = sum(line["explained_variance"] for line in curve[-tenth:]) / tenth
    if after - before < 0.01:
        return None
    advice = "Training was still improving when it ended. Raise training.rows."
    return Finding("warning", f"Explained variance rose by {after - before:.3f} in the last tenth of the run", advice)


def _unhurt(results: Results, _: Curve) -> Finding | None:
    if results["ce_spliced"] >= results["ce_clean"] - 0.01:
        return None
    advice = "A reconstruction cannot inform the model; the measured text is too small or very unlike the model's own."
    return Finding("warning", "The loss is lower with the reconstruction than without", advice)
