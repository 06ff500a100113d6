"""Directions of the residual stream that a model has: what tokens put there and what reads them off, and neurons."""

import re
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unweave.models.language_model import LanguageModel
from unweave.models.norms import whole

_WHOLE = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
_BEHIND_MLP = ("resid_post", "mlp_out")


@torch.no_grad()
def stream_directions(model: LanguageModel, site: str) -> dict[str, Float[Tensor, "N D"]]:
    """The rows of ``unembedding``, ``embedding`` and ``neurons``, those of them that are found.

    The unembedding has the final norm's weight, and is centred where that norm centres. Neurons are those of MLPs up to
    the site, each as it writes. Empty for a site that is not in the stream or added to it.
    """
    match = re.fullmatch(r"layers\.(\d+)\.(.+)", model.sites.resolve(site).name.partition(":")[0])
    if match is None or match.group(2) not in _WHOLE:
        return {}
    found: dict[str, Tensor] = {}
    embedding, unembedding = model.model.get_input_embeddings(), _unembedding(model)
    if unembedding is not None:
        found["unembedding"] = unembedding
    if isinstance(embedding, nn.Embedding):
        found["embedding"] = whole(embedding.weight).float()
    neurons = _neurons(model, int(match.group(1)) + (match.group(2) in _BEHIND_MLP))
    if neurons:
        found["neurons"] = torch.cat(neurons)
    width = model.width(site)
    return {name: rows for name, rows in found.items() if rows.shape[1] == width}


def _unembedding(model: LanguageModel) -> Float[Tensor, "V D"] | None:
    norm, unembed = model.sites.layout.last.get("ln_final.normalized"), model.model.get_output_embeddings()
    if norm is None or norm.norm is None or unembed is None:
        return None
    weight = norm.norm.effective_weight(model.model.get_submodule(norm.module))
    rows = whole(unembed.weight).float()
    rows = rows * torch.as_tensor(weight).to(rows)
    return rows - rows.mean(1, keepdim=True) if norm.norm.is_centred else rows


def _neurons(model: LanguageModel, n_layers: int) -> list[Float[Tensor, "N D"]]:
    """What the neurons of the first layers write, where they write it to the stream as it is."""
    found: list[Tensor] = []
    for layer, points in enumerate(model.sites.layout.blocks[:n_layers]):
        if "mlp.post" not in points or "mlp_out" not in points:
            continue
        path, behind = (model.sites.resolve(f"layers.{layer}.{point}").module for point in ("mlp.post", "mlp_out"))
        if f"{path}.".startswith(f"{behind}."):  # else what it writes is normalised or scaled
            projection: Any = model.model.get_submodule(path)
            weight = whole(projection.weight).float()
            found.append(weight.T if isinstance(projection, nn.Linear) else weight)  # GPT-2's Conv1D keeps [in, out]
    return found
