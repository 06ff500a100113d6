"""What probes say of texts once some latents are taken out: exactly, and without encoding anything again.

A coder's decoder is linear and its error is kept, so a row without the latents S is x - sum_{i in S} f_i d_i, and the
same holds for means over the tokens of a text:

    mean_t x'_t = mean_t x_t - sum_{i in S} mean_t(f_ti) d_i
    w.mean_t x'_t + b = w.mean_t x_t + b - sum_{i in S} mean_t(f_ti) (w.d_i)

So the mean latents of each text are all that SCR and TPP need, for every set S and every probe. ``without_latents`` is
the plain reference, which encodes every token again.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from torch import Tensor

from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.evals.probes import Probe, mean_difference

COUNTS = (2, 5, 10, 20, 50, 100, 500)
"""Numbers of latents that are ablated."""


class Ablated(NamedTuple):
    """Probes before and after: logits of each example, by the number of latents that were taken out."""

    before: Float[np.ndarray, "N C"]
    after: dict[int, Float[np.ndarray, "N C"]]


def ablate(
    probes: Sequence[Probe],
    rows: Float[np.ndarray, "N D"],
    latents: csr_array,
    W_dec: Float[np.ndarray, "L D"],
    ranked: Int[np.ndarray, " K"],
    counts: Sequence[int],
) -> Ablated:
    """Logits of the probes without the first so many of the ranked latents; all of them where there are fewer."""
    weights_CD = np.stack([probe.weights for probe in probes])
    before = rows @ weights_CD.T + np.array([probe.bias for probe in probes])
    chosen_NK = latents[:, ranked].toarray()
    written_KC = W_dec[ranked] @ weights_CD.T
    after, logits, done = {}, before, 0
    for count in sorted(counts):
        logits = logits - chosen_NK[:, done:count] @ written_KC[done:count]
        after[count], done = logits, count
    return Ablated(before, after)


@torch.no_grad()
def without_latents(coder: SparseCoder, x_BD: Float[Tensor, "B D"], latents: Int[Tensor, " K"]) -> Float[Tensor, "B D"]:
    """Each row with some latents set to 0 and the coder's error kept: the plain reference."""
    dense_BL = coder.encode(x_BD).dense()
    error_BD = x_BD - dense_BL @ coder.W_dec
    dense_BL[:, latents] = 0
    return dense_BL @ coder.W_dec + error_BD


def effects(
    probe: Probe, latents: csr_array, is_positive_N: np.ndarray, W_dec: Float[np.ndarray, "L D"]
) -> Float[np.ndarray, " L"]:
    """How much of the difference of the class means each latent has in the probe's logit: dmean(f_i) (w.d_i)."""
    return mean_difference(latents, is_positive_N) * (W_dec @ probe.weights)


def decoder(coder: SparseCoder) -> Float[np.ndarray, "L D"]:
    """Decoder rows in double precision."""
    return coder.W_dec.detach().double().cpu().numpy()


def usable_counts(counts: Sequence[int], coder: SparseCoder) -> tuple[int, ...]:
    """Those counts that a coder has latents for, ascending; raises ``UserError`` where none is left."""
    most = coder.n_latents
    if usable := tuple(sorted(count for count in counts if 0 < count <= most)):
        return usable
    raise UserError(f"counts of latents to take out are from 1 to {most}, got {', '.join(map(str, counts)) or 'none'}")
