"""Which tokens a direction promotes: the logit lens (nostalgebraist 2020) applied to decoder rows.

A direction written to the residual stream is scaled by the final norm's weight (and centred, where that norm centres)
and multiplied by the unembedding. The norm's scale, which depends on the token, is left out: weights compare within a
latent.
"""

import re
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


@torch.no_grad()
def promoted_and_suppressed(
    model: LanguageModel, site: str, directions: Float[Tensor, "L D"], n_tokens: int
) -> tuple[TokenTables, TokenTables] | None:
    """The tokens each direction pushes up and down most, or None for a site that is not written to the stream."""
    to_stream = _to_stream(model, site)
    norm, unembed = model.sites.layout.last.get("ln_final.normalized"), model.model.get_output_embeddings()
    if to_stream is None or norm is None or norm.norm is None or unembed is None:
        return None
    weight = norm.norm.effective_weight(model.model.get_submodule(norm.module))
    n_tokens = min(n_tokens, model.n_vocabulary)
    unembedding = whole(unembed.weight).float().to(directions.device)
    up, down = [], []
    for part in directions.split(_LATENTS_AT_ONCE):
        stream = part.float() if isinstance(to_stream, nn.Identity) else part.float() @ _input_major(to_stream)
        if norm.norm.is_centred:
            stream = stream - stream.mean(1, keepdim=True)
        logits = (stream * torch.as_tensor(weight).to(stream)) @ unembedding.T
        up.append(logits.topk(n_tokens, dim=1))
        down.append(logits.topk(n_tokens, dim=1, largest=False))
    tables = [
        TokenTables(torch.cat([t.indices for t in ts]).cpu(), torch.cat([t.values for t in ts]).cpu())
        for ts in (up, down)
    ]
    return tables[0], tables[1]


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
