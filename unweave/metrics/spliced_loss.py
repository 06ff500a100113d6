"""What the language model loses when it must go on from the reconstruction instead of the activation.

Cross-entropy (CE) of the next token and KL(p_clean | p), both in nats per token, with the site replaced by the
reconstruction, by zero, by the mean row, or by the row of another token drawn at random (resample). The raw difference
CE_spliced - CE_clean is the figure to read; of the shares

    loss recovered = (CE_baseline - CE_spliced) / (CE_baseline - CE_clean)
    KL recovered   = 1 - KL_spliced / KL_baseline

mean ablation is the honest baseline: zeroing a residual stream breaks a model so badly that every coder looks good.
"""

from collections.abc import Iterator, Mapping
from typing import final

from jaxtyping import Float
from torch import Tensor

from unweave.metrics.base import Definition, Metric, Sums, ratio
from unweave.metrics.next_tokens import ReplacedLosses

_BASELINES = {
    "mean": ("mean ablation", "the mean row", "over 0.85; 1 is as good as the model itself"),
    "zero": ("zero ablation", "zeros", "over 0.95; flattering on a residual stream, where zeros break the model"),
    "resample": ("resample ablation", "the row of another token", "over 0.85"),
}


@final
class SplicedLoss(Metric[ReplacedLosses]):
    """Sums of next-token cross-entropy and of KL."""

    variants = ("spliced", *(f"{baseline}_ablated" for baseline in _BASELINES))
    definitions = (
        Definition(
            "ce_increase",
            "Loss added",
            "Cross-entropy with the reconstruction at the site, less that of the untouched model, in nats per token.",
            "near 0",
        ),
        Definition(
            "kl",
            "KL from the clean model",
            "Mean KL divergence of the next-token distribution with the reconstruction from the clean one, in nats.",
            "near 0",
        ),
        *(
            Definition(
                f"loss_recovered_{baseline}",
                f"Loss recovered ({title})",
                f"How much of the damage of putting {what} at the site the reconstruction repairs.",
                good,
            )
            for baseline, (title, what, good) in _BASELINES.items()
        ),
        *(
            Definition(
                f"kl_recovered_{baseline}",
                f"KL recovered ({title})",
                f"How much of the divergence from the clean model with {what} at the site the reconstruction avoids.",
                good,
            )
            for baseline, (title, what, good) in _BASELINES.items()
        ),
        Definition(
            "ce_clean", "Loss, clean model", "Cross-entropy of the untouched model, in nats per token.", "the floor"
        ),
        Definition(
            "ce_spliced",
            "Loss, reconstruction",
            "Cross-entropy when the site holds the reconstruction.",
            "close to the clean loss",
        ),
        *(
            Definition(
                f"ce_{baseline}_ablated", f"Loss, {what}", f"Cross-entropy when the site holds {what}.", "a ceiling"
            )
            for baseline, (_, what, _) in _BASELINES.items()
        ),
        *(
            Definition(
                f"kl_{baseline}_ablated", f"KL, {what}", f"KL divergence when the site holds {what}.", "a ceiling"
            )
            for baseline, (_, what, _) in _BASELINES.items()
        ),
    )

    def __init__(self) -> None:
        kinds = {f"{kind}_{variant}": () for kind in ("ce", "kl") for variant in self.variants}
        super().__init__(tokens=(), ce_clean=(), **kinds)

    def update(self, batch: ReplacedLosses) -> None:
        """Of replacements by the names ``spliced``, ``zero_ablated``, ``mean_ablated`` and ``resample_ablated``."""
        batch.add_to(self)

    def figures(self, sums: Sums) -> dict[str, Float[Tensor, " R"]]:
        means = {name: values / sums["tokens"] for name, values in sums.items() if name != "tokens"}
        return dict(_figures(means))


def _figures(means: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """In the order of the definitions."""
    clean, spliced = means["ce_clean"], means["ce_spliced"]
    yield "ce_increase", spliced - clean
    yield "kl", means["kl_spliced"]
    for baseline in _BASELINES:
        damage = means[f"ce_{baseline}_ablated"] - clean
        yield f"loss_recovered_{baseline}", 1.0 - ratio(spliced - clean, damage)
    for baseline in _BASELINES:
        yield f"kl_recovered_{baseline}", 1.0 - ratio(means["kl_spliced"], means[f"kl_{baseline}_ablated"])
    yield "ce_clean", clean
    yield "ce_spliced", spliced
    for kind in ("ce", "kl"):
        for baseline in _BASELINES:
            yield f"{kind}_{baseline}_ablated", means[f"{kind}_{baseline}_ablated"]
