"""Several coders of one site that work as one: averaged (bagging), or each on what the others left (boosting).

Gadgil et al. 2025, "Ensembling Sparse Autoencoders" (arXiv 2505.16077). With coders g_1 .. g_J:

    bagging    g(x) = mean of g_j(x), of coders that differ in their seed alone
    boosting   g(x) = sum of g_j(x - g_1(x) - ... - g_{j-1}(x)), each trained on what the ones before it left over

Either is a sum of active decoder rows, so it is one coder with the concatenated dictionary: codes are put side by side,
decoder rows of a bag are divided by J, biases are averaged (bagging) or summed (boosting). A bag of coders whose
latents each have a threshold of their own (ReLU, JumpReLU, and BatchTopK and Matryoshka in use) is exactly one
JumpReLU coder; TopK coders choose within each dictionary and boosted ones read each other's errors, so those stay an
``Ensemble``.

    relative sparsity   L0 over the number of latents of all coders
    diversity           share of latents without a cosine of 0.7 or more to any other
    connectivity        share of all pairs of latents that are active on one row at least once
    stability           mean max cosine with an ensemble that was built on its own
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.analysis.cofiring import CoFiring
from unweave.analysis.cosines import nearest
from unweave.analysis.matching import mmcs
from unweave.coders import SparseCoder
from unweave.coders.jumprelu import JumpRelu, JumpReluConfig
from unweave.errors import UserError
from unweave.metrics.base import CodedRows, Definition
from unweave.metrics.reconstruction import Reconstruction
from unweave.types import Codes

THRESHOLDED = ("batch_topk", "jumprelu", "matryoshka", "p_anneal", "relu")
"""Architectures of which a latent is active exactly where its own pre-activation is over a threshold."""
_DISTINCT_UNDER = 0.7

DEFINITIONS = (
    Definition(
        "ensemble_explained_variance",
        "Explained variance of the ensemble",
        "Share of the activations' variance that the coders together keep, over all tokens at once.",
        "above that of each of the coders",
    ),
    Definition(
        "ensemble_l0",
        "Active latents of the ensemble",
        "Mean number of active latents per token, over the dictionaries of all coders.",
        "the sum over its coders",
    ),
    Definition(
        "ensemble_relative_sparsity",
        "Relative sparsity",
        "Active latents per token over the latents of all coders.",
        "as in one of the coders",
    ),
    Definition(
        "ensemble_diversity",
        "Diversity",
        "Share of latents whose cosine to every other latent of the ensemble is under 0.7.",
        "above that of a single coder of the same size",
    ),
    Definition(
        "ensemble_connectivity",
        "Connectivity of the ensemble",
        "Share of all pairs of latents that are active on one token at least once.",
        "compare on the same tokens only",
    ),
    Definition(
        "ensemble_stability",
        "Stability",
        "Mean max cosine with the latents of an ensemble that was built independently.",
        "above that of single coders of other seeds",
    ),
)


class Ensemble:
    """Coders of one wiring that write together; ``encode`` and ``reconstruct`` are as those of one coder."""

    def __init__(self, coders: Sequence[SparseCoder], kind: Literal["bagging", "boosting"]) -> None:
        if not coders:
            raise UserError("an ensemble needs at least one coder, got none")
        wiring = coders[0].wiring
        if any(coder.wiring != wiring for coder in coders):
            raise UserError(f"an ensemble needs coders of one wiring, got {[coder.wiring for coder in coders]}")
        if wiring.skip or wiring.row_norm != "none":
            raise UserError("an ensemble is one dictionary only for coders without a skip path and a norm of rows")
        if kind == "boosting" and not wiring.writes_what_it_reads:
            raise UserError(f"boosting needs coders that write what they read, got a {wiring.kind}")
        self.coders, self.kind, self.wiring = list(coders), kind, wiring
        self.share = 1.0 / len(coders) if kind == "bagging" else 1.0

    @property
    def n_latents(self) -> int:
        return sum(coder.n_latents for coder in self.coders)

    @cached_property
    def W_dec(self) -> Float[Tensor, "L D"]:
        """The concatenated dictionary, as the coders are when it is first asked for."""
        return self.share * torch.cat([coder.W_dec.detach() for coder in self.coders])

    @cached_property
    def b_dec(self) -> Float[Tensor, " D"]:
        return self.share * torch.stack([coder.b_dec.detach() for coder in self.coders]).sum(0)

    @torch.no_grad()
    def encode(self, x_BD: Float[Tensor, "B D"]) -> Codes:
        """Codes of all coders side by side; latents of the first coder come first."""
        found: list[Codes] = []
        for coder in self.coders:
            codes = coder.encode(x_BD)
            found.append(codes)
            if self.kind == "boosting":
                x_BD = x_BD - coder.reconstruct(codes, x_BD)
        return _side_by_side(found)

    @torch.no_grad()
    def decode(self, codes: Codes) -> Float[Tensor, "B D"]:
        from unweave.kernels.sparse_decode import sparse_decode

        return sparse_decode(codes, self.W_dec) + self.b_dec

    def __call__(self, x_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        return self.decode(self.encode(x_BD))


@torch.no_grad()
def as_one_coder(bag: Ensemble) -> SparseCoder:
    """A bag of coders with thresholds as one JumpReLU coder that writes the same.

    Raises ``UserError`` where there is no such coder.
    """
    types = [type(coder).__module__.rpartition(".")[2] for coder in bag.coders]
    other = sorted({name for name in types if name not in THRESHOLDED})
    if bag.kind != "bagging" or other:
        raise UserError(
            f"only bags of {', '.join(THRESHOLDED)} are one coder, got {bag.kind} of {', '.join(sorted(set(types)))}; "
            "use the Ensemble itself"
        )
    config = JumpReluConfig(n_latents=bag.n_latents, decoder_norm="free", variant="gdm", centre=False)
    whole = JumpRelu(config, bag.wiring).to(bag.coders[0].W_dec)
    whole.W_enc.copy_(torch.cat([_reader(coder) for coder in bag.coders]))
    whole.b_enc.copy_(torch.cat([_offset(coder) for coder in bag.coders]))
    whole.threshold.copy_(torch.cat([_thresholds(coder) for coder in bag.coders]))
    whole.W_dec.copy_(bag.W_dec)
    whole.b_dec.copy_(bag.b_dec)
    whole.origin = bag.coders[0].origin
    return whole.eval().requires_grad_(False)


def ensemble_figures(
    ensemble: Ensemble, batches: Iterable[Float[Tensor, "_ D"]], other: Ensemble | None = None
) -> dict[str, float]:
    """All figures on batches of rows of the site; stability only against another ensemble."""
    if not ensemble.wiring.writes_what_it_reads:
        raise UserError(f"these figures are of coders that write what they read, got a {ensemble.wiring.kind}")
    reconstruction, fired = Reconstruction(ensemble.wiring.d_write), CoFiring(ensemble.n_latents, ensemble.n_latents)
    for x in batches:
        codes = ensemble.encode(x)
        blocks = torch.zeros(len(x), dtype=torch.int64)
        reconstruction.update(CodedRows(x, codes, ensemble.decode(codes), blocks))
        fired.update(codes, codes)
    n = ensemble.n_latents
    l0 = (fired.powers[0][0].sum() / fired.n_rows).item()
    figures = {
        "ensemble_explained_variance": reconstruction.compute()["explained_variance"],
        "ensemble_l0": l0,
        "ensemble_relative_sparsity": l0 / n,
        "ensemble_diversity": diversity(ensemble.W_dec),
        "ensemble_connectivity": fired.n_pairs_of_others() / max(1, n * (n - 1)),
    }
    return figures if other is None else figures | {"ensemble_stability": mmcs(ensemble.W_dec, other.W_dec)}


def diversity(W_dec_LD: Float[Tensor, "L D"]) -> float:
    """Share of latents that have no near copy among the others."""
    if len(W_dec_LD) < 2:
        return 1.0
    return (nearest(W_dec_LD).cosines[:, 0] < _DISTINCT_UNDER).double().mean().item()


def _side_by_side(found: Sequence[Codes]) -> Codes:
    """Rows of several codes put together, entries still sorted by latent."""
    ids, offset = [], 0
    for codes in found:
        ids.append(codes.latent_ids + offset)
        offset += codes.n_latents
    rows = torch.cat([codes.row_ids for codes in found])
    order = rows.argsort(stable=True)
    values = torch.cat([codes.values for codes in found])[order]
    offsets = torch.stack([codes.row_offsets for codes in found]).sum(0)
    return Codes(values, torch.cat(ids)[order], offsets, offset)


def _reader(coder: SparseCoder) -> Tensor:
    assert isinstance(coder.W_enc, Tensor)
    return coder.W_enc.detach()


def _offset(coder: SparseCoder) -> Tensor:
    """The encoder's bias with the centre taken in."""
    assert isinstance(coder.b_enc, Tensor)
    return coder.b_enc if coder.centre is None else coder.b_enc - _reader(coder) @ coder.centre


def _thresholds(coder: SparseCoder) -> Tensor:
    if isinstance(coder, JumpRelu):
        return coder.thresholds().detach()
    threshold = getattr(coder, "threshold", None)
    start = torch.zeros((), device=coder.W_dec.device) if threshold is None else threshold
    return start.to(coder.W_dec).expand(coder.n_latents)
