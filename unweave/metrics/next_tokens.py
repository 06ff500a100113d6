"""What other logits lose of the model's own prediction of the next token, token by token, in nats.

Cross-entropy (CE) is -log p(next token); KL is KL(p_clean | p), with p_clean that of the untouched model.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unweave.metrics.base import Metric


class TokenLosses(NamedTuple):
    """Losses of each token that is predicted, text by text."""

    ce: Float[Tensor, " P"]
    kl: Float[Tensor, " P"]


class ReplacedLosses(NamedTuple):
    """Losses on the same tokens, clean and under some replacements at a site."""

    blocks: Int[Tensor, " P"]
    """The block of documents that each predicted token is from."""
    ce_clean: Float[Tensor, " P"]
    replaced: Mapping[str, TokenLosses]

    def add_to(self, metric: Metric) -> None:
        """Add to the sums ``tokens``, ``ce_clean``, and ``ce_<name>`` and ``kl_<name>`` of each replacement."""
        metric.add("tokens", self.blocks, torch.ones(len(self.blocks)))
        metric.add("ce_clean", self.blocks, self.ce_clean)
        for name, (ce, kl) in self.replaced.items():
            metric.add(f"ce_{name}", self.blocks, ce)
            metric.add(f"kl_{name}", self.blocks, kl)


class NextTokens:
    """The tokens of a batch that are predicted, all but each text's first and padding, and what the model says of them.

    Holds one copy of the clean logits in single precision; others are read a text at a time.
    """

    def __init__(
        self, token_ids: Int[Tensor, "N T"], clean: Float[Tensor, "N T V"], is_padding: Bool[Tensor, "N T"] | None
    ) -> None:
        """``is_padding``: where a token is not to be predicted; None: nowhere."""
        self.is_predicted = torch.ones_like(token_ids, dtype=torch.bool, device="cpu")
        if is_padding is not None:
            self.is_predicted = ~is_padding.cpu()
        self.is_predicted[:, 0] = False
        self._targets = token_ids.cpu()[self.is_predicted].to(clean.device)[:, None]
        self._counts = self.is_predicted.sum(1).tolist()
        self._logs = clean.new_empty((len(self._targets), clean.shape[-1]), dtype=torch.float32)
        for i, part in self._texts():
            self._logs[part] = self._of_text(clean, i)
        self.ce: Float[Tensor, " P"] = -self._logs.gather(1, self._targets)[:, 0]
        """Of the untouched model."""

    def losses(self, *replaced: Float[Tensor, "N T V"]) -> list[TokenLosses]:
        """What each of these logits loses on these tokens."""
        n, device = len(self.ce), self.ce.device
        kl = torch.empty((len(replaced), n), dtype=torch.float64, device=device)
        found = [TokenLosses(torch.empty(n, device=device), of_one) for of_one in kl]
        for i, part in self._texts():
            clean, targets = self._logs[part], self._targets[part]
            p = clean.exp()
            for logits, losses in zip(replaced, found, strict=True):
                logs = self._of_text(logits, i)
                losses.ce[part] = -logs.gather(1, targets)[:, 0]
                losses.kl[part] = torch.sub(clean, logs, out=logs).mul_(p).sum(-1, dtype=torch.float64)
        return found

    def _texts(self) -> Iterator[tuple[int, slice]]:
        """Each text and its share of the predicted tokens."""
        start = 0
        for i, count in enumerate(self._counts):
            yield i, slice(start, start + count)
            start += count

    def _of_text(self, logits: Float[Tensor, "N T V"], i: int) -> Float[Tensor, "Q V"]:
        """Log-probabilities at the places of a text before the tokens that are predicted."""
        is_before = self.is_predicted[i, 1:]
        own = logits[i, :-1] if is_before.all() else logits[i, :-1][is_before.to(logits.device)]
        return own.float().log_softmax(-1)
