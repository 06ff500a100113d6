"""What the language model loses when it must go on from the reconstruction instead of the activation.

Cross-entropy of the next token, clean and with the site replaced by the reconstruction, by zero or by the mean row;
loss recovered = (CE_baseline - CE_spliced) / (CE_baseline - CE_clean); KL = mean KL(p_clean | p_spliced).
Mean ablation is the honest baseline: zeroing a residual stream breaks a model so badly that every coder looks good.
"""

from collections.abc import Mapping
from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unweave.metrics.base import Definition, Metric

_CHUNK = 4096
"""Positions whose log-probabilities are held at once."""


class SplicedLosses(NamedTuple):
    """Logits for the same tokens, clean and under each replacement."""

    token_ids: Int[Tensor, "N T"]
    clean: Float[Tensor, "N T V"]
    replaced: Mapping[str, Float[Tensor, "N T V"]]
    """Logits under ``spliced``, ``zero_ablated`` and ``mean_ablated``."""
    is_padding: Bool[Tensor, "N T"] | None = None
    """Where a token is not to be predicted; None: nowhere."""


@final
class SplicedLoss(Metric[SplicedLosses]):
    """Sums of next-token cross-entropy and of KL, in nats and float64."""

    variants = ("spliced", "zero_ablated", "mean_ablated")
    definitions = (
        Definition(
            "loss_recovered_mean",
            "Loss recovered (mean ablation)",
            "How much of the damage of putting the mean row at the site the reconstruction repairs.",
            "over 0.85; 1 is as good as the model itself",
        ),
        Definition(
            "loss_recovered_zero",
            "Loss recovered (zero ablation)",
            "The same against putting zeros at the site. Flattering on a residual stream, where zeros break the model.",
            "over 0.95",
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
        Definition("ce_zero_ablated", "Loss, zeros", "Cross-entropy when the site holds zeros.", "a ceiling"),
        Definition("ce_mean_ablated", "Loss, mean row", "Cross-entropy when the site holds its mean row.", "a ceiling"),
        Definition(
            "kl",
            "KL from the clean model",
            "Mean KL divergence of the next-token distribution with the reconstruction from the clean one, in nats.",
            "near 0",
        ),
    )

    def __init__(self) -> None:
        self.n_tokens = 0
        self.clean = 0.0
        self.kl = 0.0
        self.replaced = dict.fromkeys(self.variants, 0.0)

    def update(self, batch: SplicedLosses) -> None:
        """One text at a time, so that a batch of logits is never copied as a whole."""
        device = batch.clean.device
        for i, token_ids in enumerate(batch.token_ids):
            predicted = slice(0, -1)
            targets = token_ids[1:]
            if batch.is_padding is not None:
                predicted = (~batch.is_padding[i, 1:]).nonzero().flatten()
                targets = targets[predicted]
                predicted = predicted.to(device)
            targets = targets.to(device)
            clean = batch.clean[i, predicted]
            self.n_tokens += targets.shape[0]
            self.clean += _cross_entropy(clean, targets)
            for variant in self.variants:
                logits = batch.replaced[variant][i, predicted]
                self.replaced[variant] += _cross_entropy(logits, targets)
                if variant == "spliced":
                    self.kl += _kl(clean, logits)

    def merge(self, other: "SplicedLoss") -> None:
        self.n_tokens += other.n_tokens
        self.clean += other.clean
        self.kl += other.kl
        for variant in self.variants:
            self.replaced[variant] += other.replaced[variant]

    def compute(self) -> dict[str, float]:
        clean = self.clean / self.n_tokens
        ce = {variant: total / self.n_tokens for variant, total in self.replaced.items()}
        return {
            "ce_clean": clean,
            **{f"ce_{variant}": value for variant, value in ce.items()},
            "loss_recovered_zero": _recovered(ce["zero_ablated"], ce["spliced"], clean),
            "loss_recovered_mean": _recovered(ce["mean_ablated"], ce["spliced"], clean),
            "kl": self.kl / self.n_tokens,
        }


def _recovered(baseline: float, spliced: float, clean: float) -> float:
    """NaN where the baseline does no damage, since the share of nothing says nothing."""
    return (baseline - spliced) / (baseline - clean) if baseline != clean else float("nan")


def _cross_entropy(logits: Float[Tensor, "B V"], targets: Int[Tensor, " B"]) -> float:
    parts = zip(logits.split(_CHUNK), targets.split(_CHUNK), strict=True)
    return sum(F.cross_entropy(part.float(), target, reduction="none").double().sum().item() for part, target in parts)


def _kl(clean: Float[Tensor, "B V"], other: Float[Tensor, "B V"]) -> float:
    total = 0.0
    for p_logits, q_logits in zip(clean.split(_CHUNK), other.split(_CHUNK), strict=True):
        p, q = p_logits.float().log_softmax(-1), q_logits.float().log_softmax(-1)
        total += (p.exp() * (p - q)).sum(-1, dtype=torch.float64).sum().item()
    return total
