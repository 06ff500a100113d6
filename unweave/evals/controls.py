"""Coders that have learned nothing about latents, as floors and as a ceiling for what is measured of real ones.

- random: unit decoder rows in random directions, read by their transpose, TopK with the L0 of the real coder.
- pca: the leading principal directions of the rows, as many as the real coder has active latents.
- identity: writes what it reads.

Principal directions and the identity are written as pairs of latents, relu(u.x) and relu(-u.x), of which one is active.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unweave.coders import SparseCoder, Wiring
from unweave.coders.relu import Relu, ReluConfig
from unweave.coders.start import leading_directions
from unweave.coders.topk import TopK, TopKConfig


class Kind(NamedTuple):
    """What a control is made of; coders that share it share the control."""

    name: str
    """``random``, ``pca`` or ``identity``."""
    site: str
    k: int = 0
    """Active latents of each row."""
    n_latents: int = 0


def control_kinds(coder: SparseCoder, l0: float) -> dict[str, Kind]:
    """The controls to hold a coder of a given L0 against; none unless it is an SAE, which they can stand in for."""
    if coder.wiring.kind != "sae":
        return {}
    site, k = coder.site, max(1, round(l0))
    random = Kind("random", site, min(k, coder.n_latents), coder.n_latents)
    return {"random": random, "pca": Kind("pca", site, k), "identity": Kind("identity", site)}


def control(kind: Kind, x_BD: Float[Tensor, "B D"], seed: int = 0) -> SparseCoder:
    """The control of a kind, given rows of its site, on their device; ``seed`` draws the random directions."""
    x_BD = x_BD.float()
    wiring = Wiring.sae(x_BD.shape[1], kind.site)
    if kind.name == "random":
        made = random_coder(wiring, kind.n_latents, float(kind.k), x_BD.mean(0), seed)
    elif kind.name == "pca":
        made = pca_coder(wiring, float(kind.k), x_BD)
    else:
        made = identity_coder(wiring)
    return made.to(x_BD.device)


@torch.no_grad()
def random_coder(wiring: Wiring, n_latents: int, l0: float, mean_D: Float[Tensor, " D"], seed: int = 0) -> SparseCoder:
    """TopK in random directions about the mean row; of an SAE's or crosscoder's wiring."""
    k = min(n_latents, max(1, round(l0)))
    coder = TopK(TopKConfig(n_latents=n_latents, k=k, decoder_norm="free"), wiring)
    generator = torch.Generator().manual_seed(seed)
    directions = F.normalize(torch.randn(n_latents, wiring.d_write, generator=generator), dim=1)
    coder.W_enc.copy_(directions)
    coder.W_dec.copy_(directions)
    coder.b_enc.zero_()
    coder.b_dec.copy_(mean_D)
    return coder.eval().requires_grad_(False)


@torch.no_grad()
def pca_coder(wiring: Wiring, l0: float, x_BD: Float[Tensor, "B D"]) -> SparseCoder:
    """The rows' projection on as many principal directions as there are active latents, about their mean."""
    k = min(x_BD.shape[1], max(1, round(l0)))
    return _linear_coder(wiring, leading_directions(x_BD, k).flip(0), x_BD.mean(0))


def identity_coder(wiring: Wiring) -> SparseCoder:
    """Writes what it reads."""
    return _linear_coder(wiring, torch.eye(wiring.d_read), torch.zeros(wiring.d_read))


@torch.no_grad()
def _linear_coder(wiring: Wiring, directions_KD: Float[Tensor, "K D"], centre_D: Float[Tensor, " D"]) -> SparseCoder:
    """Writes the projection on orthonormal directions about a centre."""
    both = torch.cat([directions_KD, -directions_KD])
    coder = Relu(ReluConfig(n_latents=len(both), variant="april_2024", centre=True), wiring)
    coder.W_enc.copy_(both)
    coder.W_dec.copy_(both)
    coder.b_enc.zero_()
    coder.b_dec.copy_(centre_D)
    return coder.eval().requires_grad_(False)
