"""The geometry of one coder's directions: how alike its latents are, and what in the model they stand near.

With unit decoder rows d_i, encoder rows w_i and singular values s of the unit decoder rows:

    neighbour cosine       max over j != i of d_i . d_j; high where one feature was split into several latents
    encoder-decoder        cos(w_i, d_i); 1 where a latent reads what it writes
    effective rank         exp(-sum p log p) with p = s / sum s (Roy and Vetterli 2007, "The effective rank")
    participation ratio    (sum_d d^2)^2 / sum_d d^4, the number of neurons over which a row is spread; for a random
                           direction D^2 / k with k = 3 D / (D + 2), about D / 3
    kurtosis               D sum_d d^4 / (sum_d d^2)^2 about 0; 3 D / (D + 2) for a random direction, far more where
                           directions follow single neurons (Elhage et al. 2023, "Privileged Bases")
    token alignment        max over tokens v of |cos(d_i, u_v)|, with u the rows of the unembedding or the embedding
    neuron alignment       the same with what the neurons of MLPs write

A random direction's nearest of M others is that of ``cosines.py``. See also SAEBench (Karvonen et al. 2025,
arXiv 2503.09532), which reports neighbour and encoder-decoder cosines of every coder.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.analysis.cosines import CELLS, check_widths, nearest, paired, random_nearest, unit_rows
from unweave.errors import UserError
from unweave.metrics.base import Definition

_BIN = 0.05

DEFINITIONS = (
    Definition(
        "neighbour_cosine",
        "Cosine to the nearest latent",
        "Largest cosine of a latent's decoder row with that of any other latent, averaged over latents.",
        "not far above that of random directions; high where latents repeat each other",
    ),
    Definition(
        "neighbour_cosine_of_random",
        "The same of random directions",
        "What the cosine to the nearest latent would be on average if all decoder rows were random directions.",
        "a floor",
    ),
    Definition(
        "neighbours_over_0.7",
        "Latents with a neighbour over 0.7",
        "Share of latents whose decoder row has a cosine over 0.7 with that of another latent.",
        "under 20 %",
    ),
    Definition(
        "neighbours_over_0.9",
        "Latents with a near copy",
        "Share of latents whose decoder row has a cosine over 0.9 with that of another latent.",
        "under 2 %",
    ),
    Definition(
        "encoder_decoder_cosine",
        "Cosine of encoder and decoder",
        "Cosine of what a latent reads and what it writes, averaged over latents; NaN where these are other spaces.",
        "0.3 to 0.9; near 0 for latents that never learned",
    ),
    Definition(
        "effective_rank",
        "Effective rank of the decoder",
        "Exponential of the entropy of the decoder's singular values, with every row at length 1.",
        "near the width; far below where latents crowd into few directions",
    ),
    Definition(
        "effective_rank_of_random",
        "The same of random directions",
        "Effective rank of as many random directions of the same width.",
        "a reference; directions that are spread evenly have a little more",
    ),
    Definition(
        "participation_ratio",
        "Neurons per decoder row",
        "Number of coordinates over which a decoder row is spread, (Σd²)² / Σd⁴, averaged over latents.",
        "about a third of the width; far less where latents follow single neurons",
    ),
    Definition(
        "participation_ratio_of_random",
        "The same of random directions",
        "Number of coordinates over which a random direction is spread.",
        "a reference",
    ),
    Definition(
        "decoder_kurtosis",
        "Kurtosis of decoder rows",
        "Kurtosis about 0 of the coordinates of a decoder row, averaged over latents.",
        "near 3; far above it in a privileged basis",
    ),
    Definition(
        "decoder_kurtosis_of_random",
        "The same of random directions",
        "Kurtosis about 0 of the coordinates of a random direction.",
        "a reference",
    ),
    Definition(
        "unembedding_alignment",
        "Alignment with the unembedding",
        "Largest absolute cosine of a decoder row with the unembedding of any token, averaged over latents.",
        "above that of random directions where latents promote single tokens",
    ),
    Definition(
        "embedding_alignment",
        "Alignment with the embedding",
        "Largest absolute cosine of a decoder row with the embedding of any token, averaged over latents.",
        "above that of random directions where latents stand for single tokens",
    ),
    Definition(
        "alignment_of_random",
        "Alignment of random directions",
        "What the alignment would be on average if the rows of tokens were random directions.",
        "a floor",
    ),
    Definition(
        "neuron_alignment",
        "Alignment with neurons",
        "Largest absolute cosine of a decoder row with what any MLP neuron up to the site writes, averaged over "
        "latents.",
        "above that of random directions where latents follow single neurons",
    ),
    Definition(
        "neuron_alignment_of_random",
        "Alignment of random neurons",
        "What the alignment with neurons would be on average if neurons wrote random directions.",
        "a floor",
    ),
)


class Geometry(NamedTuple):
    """The figures, and what they are of each latent."""

    figures: dict[str, float]
    neighbours: Int[Tensor, " L"]
    """The latent with the largest cosine."""
    neighbour_cosines: Float[Tensor, " L"]
    encoder_decoder: Float[Tensor, " L"] | None
    participation: Float[Tensor, " L"]

    def neighbour_histogram(self) -> tuple[Float[Tensor, " edges"], Int[Tensor, " bins"]]:
        """Edges and counts of the cosines to the nearest latent, in bins of 0.05 from -1 to 1."""
        bins = round(2 / _BIN)
        counts = self.neighbour_cosines.cpu().float().clamp(-1, 1).histc(bins, -1, 1).long()
        return torch.linspace(-1, 1, bins + 1), counts


class Alignment(NamedTuple):
    """The token or neuron whose row is nearest to each latent's."""

    cosines: Float[Tensor, " L"]
    """With their sign; chosen by their absolute value."""
    ids: Int[Tensor, " L"]


@torch.no_grad()
def geometry(
    W_dec_LD: Float[Tensor, "L D"],
    W_enc_LD: Float[Tensor, "L _"] | None = None,
) -> Geometry:
    """All figures that the weights alone give; ``W_enc_LD`` only where latents read and write in one space.

    Raises ``UserError`` for fewer than two latents, which have no neighbours.
    """
    n_latents, width = W_dec_LD.shape
    if n_latents < 2:
        raise UserError(f"the nearest latent needs at least 2 latents, got decoder rows {list(W_dec_LD.shape)}")
    if W_enc_LD is not None and W_enc_LD.shape != W_dec_LD.shape:
        raise UserError(
            f"encoder and decoder rows must have one shape, got {list(W_enc_LD.shape)} and {list(W_dec_LD.shape)}; "
            "leave the encoder out where a coder writes elsewhere than it reads"
        )
    near = nearest(W_dec_LD)
    cosines, read = near.cosines[:, 0], None if W_enc_LD is None else paired(W_enc_LD, W_dec_LD)
    ratios = participation_ratios(W_dec_LD)
    random_kurtosis = 3 * width / (width + 2)
    figures = {
        "neighbour_cosine": cosines.mean().item(),
        "neighbour_cosine_of_random": random_nearest(n_latents - 1, width, signed=True),
        "neighbours_over_0.7": (cosines > 0.7).double().mean().item(),
        "neighbours_over_0.9": (cosines > 0.9).double().mean().item(),
        "encoder_decoder_cosine": math.nan if read is None else read.mean().item(),
        "effective_rank": effective_rank(W_dec_LD),
        "effective_rank_of_random": effective_rank(_random_like(W_dec_LD)),
        "participation_ratio": ratios.nanmean().item(),
        "participation_ratio_of_random": width / random_kurtosis,
        "decoder_kurtosis": (width / ratios).nanmean().item(),
        "decoder_kurtosis_of_random": random_kurtosis,
    }
    return Geometry(figures, near.ids[:, 0], cosines, read, ratios)


@torch.no_grad()
def effective_rank(W_LD: Float[Tensor, "L D"]) -> float:
    """Between 1 and the smaller side; from the Gram matrix of the smaller side, in double precision."""
    n_latents, width = W_LD.shape
    if n_latents < width:
        units = unit_rows(W_LD).double()
        gram = units @ units.T
    else:
        gram = torch.zeros(width, width, dtype=torch.float64, device=W_LD.device)
        for part in W_LD.split(max(1, CELLS // width)):
            units = unit_rows(part).double()
            gram += units.T @ units
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    share = singular / singular.sum()
    return math.exp(-torch.xlogy(share, share).sum().item())


@torch.no_grad()
def participation_ratios(W_LD: Float[Tensor, "L D"]) -> Float[Tensor, " L"]:
    """Of each row: 1 for a single neuron, the width where all coordinates are equally large; NaN for a row of zeros."""
    found: list[Tensor] = []
    for part in W_LD.split(max(1, CELLS // W_LD.shape[1])):
        squares = unit_rows(part).double().square()
        found.append(squares.sum(1).square() / squares.square().sum(1))
    return torch.cat(found)


def alignment(W_dec_LD: Float[Tensor, "L D"], tokens_VD: Float[Tensor, "V _"]) -> Alignment:
    """The row of the unembedding, the embedding or the neurons with the largest absolute cosine to each latent's."""
    check_widths(W_dec_LD, tokens_VD)
    near = nearest(W_dec_LD, tokens_VD, signed=False)
    return Alignment(near.cosines[:, 0], near.ids[:, 0])


def alignment_figures(
    W_dec_LD: Float[Tensor, "L D"],
    *,
    unembedding_VD: Float[Tensor, "V _"] | None = None,
    embedding_VD: Float[Tensor, "V _"] | None = None,
    neurons_ND: Float[Tensor, "N _"] | None = None,
) -> dict[str, float]:
    """Mean alignment, and its floors, with the rows that are given, which lie in the space that the coder writes."""
    given = {"unembedding": unembedding_VD, "embedding": embedding_VD, "neuron": neurons_ND}
    known = {name: rows for name, rows in given.items() if rows is not None}
    if not known:
        raise UserError("alignment needs the rows of the unembedding, of the embedding or of neurons, got none")
    width = W_dec_LD.shape[1]
    figures = {
        f"{name}_alignment": alignment(W_dec_LD, rows).cosines.abs().mean().item() for name, rows in known.items()
    }
    tokens = [rows for name, rows in known.items() if name != "neuron"]
    if tokens:
        figures["alignment_of_random"] = random_nearest(len(tokens[0]), width)
    if neurons_ND is not None:
        figures["neuron_alignment_of_random"] = random_nearest(len(neurons_ND), width)
    return figures


def _random_like(W_LD: Float[Tensor, "L D"]) -> Float[Tensor, "L D"]:
    return torch.randn(W_LD.shape, generator=torch.Generator().manual_seed(0))
