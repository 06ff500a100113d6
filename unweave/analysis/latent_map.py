"""Latents as points of a plane: projections of their decoder directions, and clusters of these.

Directions are decoder rows of length 1. The principal plane is exact: the two directions along which they vary most,
by the eigenvectors of their covariance. UMAP (McInnes, Healy and Melville 2018, arXiv 1802.03426) keeps near directions
near and says little of distances; it is an optional package. Clusters are those of k-means on the directions
themselves, whatever the projection.
"""

import math
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.analysis.cosines import unit_rows
from unweave.errors import UserError

_NEIGHBOURS = 15
_SPAN = 10.0
"""Half the width of the plane at which UMAP starts, as large as its usual results are."""


class PrincipalPlane(NamedTuple):
    """Directions in the plane of their largest variance."""

    places_L2: Float[Tensor, "L 2"]
    shares: tuple[float, float]
    """Of the whole variance, along either axis."""


@torch.no_grad()
def principal_plane(W_LD: Float[Tensor, "L D"]) -> PrincipalPlane:
    """The principal plane of directions; of each axis, the end with the direction furthest out is positive."""
    units_LD = unit_rows(W_LD).double()
    centred_LD = units_LD - units_LD.mean(0)
    n, width = centred_LD.shape
    is_wide = width > n
    product = centred_LD @ centred_LD.T if is_wide else centred_LD.T @ centred_LD
    values, vectors = torch.linalg.eigh(product)
    values, vectors = values.flip(0)[:2].clamp(min=0), vectors.flip(1)[:, :2]
    places = vectors * values.sqrt() if is_wide else centred_LD @ vectors
    places = torch.nn.functional.pad(places, (0, 2 - places.shape[1]))
    places = places * torch.where(places.amax(0) < -places.amin(0), -1.0, 1.0)
    whole = product.diagonal().sum().clamp(min=torch.finfo(torch.float64).tiny)
    shares = [*(values / whole).tolist(), 0.0][:2]
    return PrincipalPlane(places.float(), (shares[0], shares[1]))


def umap_is_installed() -> bool:
    """Whether ``umap_plane`` can work here."""
    return find_spec("umap") is not None


def umap_plane(W_LD: Float[np.ndarray, "L D"], seed: int = 0) -> Float[np.ndarray, "L 2"]:
    """UMAP of directions by their cosines, from the principal plane on; the same seed gives the same plane.

    Raises ``UserError`` where umap-learn is not installed, or there are fewer than four directions.
    """
    if not umap_is_installed():
        raise UserError("UMAP is not installed; `pip install 'unweave[map]'`, or look at the principal plane")
    if len(W_LD) < 4:
        raise UserError(f"UMAP needs at least 4 directions, got {len(W_LD)}; look at the principal plane")
    from umap import UMAP  # slow to import

    rows = torch.from_numpy(np.ascontiguousarray(W_LD))
    start = principal_plane(rows).places_L2
    start = (start * (_SPAN / start.abs().max().clamp(min=1e-12))).numpy()
    start = start + 1e-3 * np.random.default_rng(seed).standard_normal(start.shape).astype(np.float32)
    settings: dict[str, Any] = {"metric": "cosine", "init": start, "random_state": seed, "n_jobs": 1}
    model = UMAP(n_neighbors=min(_NEIGHBOURS, len(W_LD) - 1), **settings)
    return np.asarray(model.fit_transform(_without_zeros(unit_rows(rows).numpy())), dtype=np.float32)


def clusters(W_LD: Float[Tensor, "L D"], n: int, *, seed: int = 0) -> Int[np.ndarray, " L"]:
    """The cluster of each direction by k-means, the largest cluster first; at most one for each direction."""
    from sklearn.cluster import MiniBatchKMeans  # slow to import

    if n < 1:
        raise UserError(f"there is at least 1 cluster, got {n}")
    units = unit_rows(W_LD).cpu().numpy()
    probe = np.random.default_rng(seed).standard_normal(units.shape[1], dtype=np.float32)
    n = min(n, len(np.unique((units @ probe).round(5))))  # rows that differ, without sorting whole rows
    settings: dict[str, Any] = {"n_init": 3, "random_state": seed, "batch_size": 4096}
    found = np.asarray(MiniBatchKMeans(n, **settings).fit(units).labels_)
    order = np.argsort(-np.bincount(found, minlength=n), kind="stable")
    return np.argsort(order)[found].astype(np.int32)


def usual_clusters(n_latents: int) -> int:
    """How many clusters are looked for unless told: more of a larger coder, few enough to have colours of their own."""
    return max(2, min(12, round(math.sqrt(n_latents / 8))))


def telling_words(labels_L: Int[np.ndarray, " L"], words: Sequence[Sequence[str]], most: int = 3) -> list[list[str]]:
    """For each cluster the words that its members have more often than all latents do.

    A word counts n log(n / e) for n members that have it where e would by chance.
    """
    overall = Counter(word for own in words for word in own)
    found = []
    for cluster in range(int(labels_L.max(initial=-1)) + 1):
        members = np.flatnonzero(labels_L == cluster).tolist()
        own = Counter(word for member in members for word in words[member])
        share = len(members) / len(labels_L)
        score = {word: n * math.log(n / (overall[word] * share)) for word, n in own.items()}
        best = sorted(score, key=lambda word: (-score[word], word))
        found.append([word for word in best if score[word] > 0][:most])
    return found


def _without_zeros(units: Float[np.ndarray, "L D"]) -> Float[np.ndarray, "L D"]:
    """Rows of length 0 have no cosine; the first axis is as good as any direction for them."""
    units = units.copy()
    units[~units.any(1), 0] = 1.0
    return units
