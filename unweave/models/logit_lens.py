"""Which tokens a direction promotes: the logit lens (nostalgebraist 2020) applied to decoder rows.

A direction written to the residual stream is scaled by the final norm's weight (and centred, where that norm centres)
and multiplied by the unembedding. The norm's scale, which depends on the token, is left out: weights compare within a
latent.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unweave.models.language_model import LanguageModel

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
    norm = model.sites.final_norm()
    if to_stream is None or norm is None:
        return None
    n_tokens = min(n_tokens, model.n_vocabulary)
    unembedding = _whole(model.model.get_output_embeddings().weight).to(directions.device)
    up, down = [], []
    for part in directions.split(_LATENTS_AT_ONCE):
        stream = part.float() if isinstance(to_stream, nn.Identity) else part.float() @ _input_major(to_stream)
        if isinstance(norm, nn.LayerNorm):
            stream = stream - stream.mean(1, keepdim=True)
        logits = (stream * _whole(norm.weight).to(stream.device)) @ unembedding.T
        up.append(logits.topk(n_tokens, dim=1))
        down.append(logits.topk(n_tokens, dim=1, largest=False))
    tables = [
        TokenTables(torch.cat([t.indices for t in ts]).cpu(), torch.cat([t.values for t in ts]).cpu())
        for ts in (up, down)
    ]
    return tables[0], tables[1]


def _to_stream(model: LanguageModel, site: str) -> nn.Module | None:
    """The module that carries the site's tensor into the residual stream; identity where it is there already."""
    point = model.sites.resolve(site).name.split(".", 2)[-1]
    if point in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"):
        return nn.Identity()
    if point in ("attn.z", "mlp.post"):
        return model.model.get_submodule(model.sites.resolve(site).module)
    return None


def _input_major(module: Any) -> Float[Tensor, "I O"]:
    weight = _whole(module.weight)
    return weight.T if isinstance(module, nn.Linear) else weight  # GPT-2's Conv1D keeps [in, out]


def _whole(weight: Any) -> Tensor:
    """In float32; of a model that is spread over processes, with the parts of all of them."""
    return (weight.full_tensor() if hasattr(weight, "full_tensor") else weight).float()
