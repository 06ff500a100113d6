"""Which tokens a direction promotes: the logit lens (nostalgebraist 2020) applied to decoder rows.

A direction written to the residual stream is scaled by the final norm's weight (and centred, where that norm centres)
and multiplied by the unembedding. The norm's scale, which depends on the token, is left out: weights compare within a
latent.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unweave.models.language_model import LanguageModel
from unweave.models.norms import whole

_LATENTS_AT_ONCE = 1024


class TokenTables(NamedTuple):
    """For each latent the tokens at one end of the vocabulary and their weights, strongest first."""

    token_ids: Int[Tensor, "L P"]
    weights: Float[Tensor, "L P"]


class LogitEffects(NamedTuple):
    """What each latent does to the logits."""

    promoted: TokenTables
    suppressed: TokenTables
    low: Float[Tensor, " L"]
    """The smallest weight of any token, at which the histogram begins."""
    high: Float[Tensor, " L"]
    histogram: Int[Tensor, "L N"]
    """Tokens of the vocabulary by their weight, in bins of equal width."""


@torch.no_grad()
def logit_effects(
    model: LanguageModel,
    site: str,
    directions: Float[Tensor, "L D"],
    n_tokens: int,
    *,
    n_bins: int = 40,
    told: Callable[[int, int], None] | None = None,
) -> LogitEffects | None:
    """The tokens each direction pushes up and down most, or None for a site that is not written to the stream.

    ``told`` is called with the latents that are done and those there are.
    """
    unembedding = _Unembedding.of(model, site)
    if unembedding is None:
        return None
    n_tokens = min(n_tokens, model.n_vocabulary)
    parts: list[tuple[Tensor, ...]] = []
    n_done = 0
    for part in directions.split(_LATENTS_AT_ONCE):
        logits = unembedding(part)
        up, down = logits.topk(n_tokens, dim=1), logits.topk(n_tokens, dim=1, largest=False)
        low, high = down.values[:, :1], up.values[:, :1]
        bins = ((logits - low) / (high - low).clamp(min=1e-30) * n_bins).long().clamp_(0, n_bins - 1)
        ones = torch.ones((), dtype=torch.int64, device=logits.device).expand_as(bins)
        histogram = torch.zeros(len(part), n_bins, dtype=torch.int64, device=logits.device).scatter_add_(1, bins, ones)
        parts.append((up.indices, up.values, down.indices, down.values, low[:, 0], high[:, 0], histogram))
        n_done += len(part)
        if told is not None:
            told(n_done, len(directions))
    up_ids, ups, down_ids, downs, low, high, histogram = (torch.cat(of).cpu() for of in zip(*parts, strict=True))
    return LogitEffects(TokenTables(up_ids, ups), TokenTables(down_ids, downs), low, high, histogram)


@dataclass(frozen=True)
class _Unembedding:
    """The way from a site to the logits that the logit lens takes."""

    to_stream: nn.Module
    is_centred: bool
    weight: Any
    """Of the final norm."""
    unembedding: Float[Tensor, "V D"]

    @classmethod
    def of(cls, model: LanguageModel, site: str) -> "_Unembedding | None":
        to_stream = _to_stream(model, site)
        norm, unembed = model.sites.layout.last.get("ln_final.normalized"), model.model.get_output_embeddings()
        if to_stream is None or norm is None or norm.norm is None or unembed is None:
            return None
        weight = norm.norm.effective_weight(model.model.get_submodule(norm.module))
        return cls(to_stream, norm.norm.is_centred, weight, whole(unembed.weight).float())

    def __call__(self, directions: Float[Tensor, "L D"]) -> Float[Tensor, "L V"]:
        stream = directions.float()
        if not isinstance(self.to_stream, nn.Identity):
            stream = stream @ _input_major(self.to_stream)
        if self.is_centred:
            stream = stream - stream.mean(1, keepdim=True)
        return (stream * torch.as_tensor(self.weight).to(stream)) @ self.unembedding.to(stream).T


def _to_stream(model: LanguageModel, site: str) -> nn.Module | None:
    """The module that carries the site's tensor into the residual stream; identity where it is there already."""
    match = re.fullmatch(r"layers\.(\d+)\.(.+)", model.sites.resolve(site).name.partition(":")[0])
    layer, point = match.groups() if match else ("", "")
    if point in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"):
        return nn.Identity()
    added = {"attn.z": "attn_out", "mlp.post": "mlp_out"}.get(point)
    if added is None:
        return None
    projection = model.sites.resolve(site).module
    behind = model.sites.resolve(f"layers.{layer}.{added}")
    is_last = f"{projection}.".startswith(f"{behind.module}.")  # else what it writes is normalised or scaled
    return model.model.get_submodule(projection) if is_last else None


def _input_major(module: Any) -> Float[Tensor, "I O"]:
    weight = whole(module.weight).float()
    return weight.T if isinstance(module, nn.Linear) else weight  # GPT-2's Conv1D keeps [in, out]
