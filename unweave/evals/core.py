"""The core figures of coders: how well they reconstruct, how sparse they are, and what they cost the model.

The model runs once for each batch of tokens, for all coders together; a coder costs its own encoding and one more pass
of the model, in which it is spliced in. Passes with zero, mean and resampled rows are shared by coders of one site.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.activations.coded import coded, rows_at, side_by_side, written
from unweave.activations.harvest import rows_of
from unweave.coders import SparseCoder
from unweave.evals.measured import Measured
from unweave.metrics import (
    L0,
    CodedRows,
    Density,
    FirstPosition,
    KindsOfRows,
    Kurtosis,
    Metric,
    NextTokens,
    OutlyingRows,
    PlacedErrors,
    Reconstruction,
    ReplacedLosses,
    RowRatios,
    SplicedLoss,
    TokenLosses,
    blocks_of,
)
from unweave.metrics.outlying_rows import MASSIVE, SPECIAL, is_massive
from unweave.models.language_model import LanguageModel
from unweave.models.prefix import Prefix, after_prefix, keeping_prefix
from unweave.types import Codes, Rows, TokenBatch

Activations = Mapping[str, Float[Tensor, "N T _"]]
"""What a batch of sequences was captured as, by site."""
_PIECE = 16
"""Sequences after which a document that goes on counts as another one for the errors."""
_SEEDS_APART = 1_000_003
"""Between the draws of two seeds, each of whose batches has a draw of its own, by the number of its first sequence."""


class CodedBatch(NamedTuple):
    """The rows of a batch of tokens and what one coder made of them."""

    rows: Rows
    codes: Codes


class CoderMeasures:
    """Everything that is measured of one coder in the core passes."""

    def __init__(self, coder: SparseCoder, mean_D: Float[Tensor, " D"]) -> None:
        """``mean_D`` is the mean of the rows that should be written, which is also what mean ablation puts there."""
        self.coder = coder
        self.reconstruction = Reconstruction(coder.wiring.d_write)
        self.density = Density(coder.n_latents)
        self.l0 = L0()
        self._of_codes: list[Metric[CodedRows]] = [
            self.reconstruction,
            self.l0,
            self.density,
            RowRatios(mean_D),
            Kurtosis(mean_D, coder.n_latents),
        ]
        self._first, self._outlying, self.spliced = FirstPosition(), OutlyingRows(), SplicedLoss()

    @property
    def metrics(self) -> list[Metric[Any]]:
        return [*self._of_codes, self._first, self._outlying, self.spliced]

    def update(self, rows: Rows, captured: Activations, blocks_B: Int[Tensor, " B"]) -> Codes:
        """Add the rows of a batch that count, each of a block of documents; returns their codes."""
        length = next(iter(captured.values())).shape[1]
        y = side_by_side(self.coder, rows.activations, self.coder.wiring.writes)
        codes, y_hat = coded(self.coder, captured, rows.sequences * length + rows.positions)
        codes = codes.where(codes.values != 0)  # a GPU's codes may have explicit zeros, which are not active
        found = CodedRows(y, codes, y_hat, blocks_B)
        for metric in self._of_codes:
            metric.update(found)
        self._first.update(PlacedErrors(y - y_hat, rows.positions, found.blocks))
        kinds = is_massive(y).long() * MASSIVE
        self._outlying.update(KindsOfRows(y, y_hat, kinds, found.blocks))
        return codes

    def update_left_out(self, left_out: "LeftOut", captured: Activations) -> None:
        """Add the rows of a batch that do not count."""
        y = rows_at(self.coder, captured, self.coder.wiring.writes, left_out.places)
        y_hat = coded(self.coder, captured, left_out.places).written_BD
        self._outlying.update(KindsOfRows(y, y_hat, left_out.kinds, left_out.blocks))

    def compute(self) -> Measured:
        """NaN for the losses where nothing was spliced."""
        figures, errors = {}, {}
        for metric in self.metrics:
            figures |= metric.compute()
            errors |= metric.standard_errors()
        return Measured(figures, errors, self.reconstruction.n_rows, {})

    def distributions(self) -> dict[str, Any]:
        """Tokens by number of active latents, and latents by the decimal logarithm of their density."""
        return {
            "tokens_by_l0": self.l0.rows_by_count.tolist(),
            "latents_by_density": self.density.histogram()._asdict(),
        }


class LeftOut(NamedTuple):
    """Rows of a batch that are in no figure but their own."""

    places: Int[Tensor, " B"]
    """Of their tokens in the flattened batch."""
    kinds: Int[Tensor, " B"]
    blocks: Int[Tensor, " B"]


def left_out(batch: TokenBatch, rows: Rows, blocks_NT: Int[Tensor, "N T"]) -> LeftOut:
    """The rows of special tokens, and content rows that were too long to be among ``rows``; no padding."""
    length = batch.token_ids.shape[1]
    is_left = torch.ones(batch.token_ids.numel(), dtype=torch.bool)
    is_left[rows.sequences * length + rows.positions] = False
    if batch.is_padding is not None:
        is_left &= ~batch.is_padding.flatten()
    places = is_left.nonzero().flatten()
    kinds = torch.where(batch.is_content.flatten()[places], MASSIVE, SPECIAL)
    return LeftOut(places, kinds, blocks_NT.flatten()[places])


class CoreMeasures:
    """The core figures of several coders of one model, batch by batch."""

    def __init__(
        self,
        model: LanguageModel,
        coders: Mapping[str, SparseCoder],
        means: Mapping[str, Float[Tensor, " _"]],
        *,
        max_norm: float = 0.0,
        seed: int = 0,
    ) -> None:
        """``means`` has the mean row of every site that is written; ``seed`` draws the rows of resample ablation."""
        self._model = model
        self.coders = {
            name: CoderMeasures(coder, torch.cat([means[port.site] for port in coder.wiring.writes]))
            for name, coder in coders.items()
        }
        ports = [port for coder in coders.values() for port in coder.wiring.reads + coder.wiring.writes]
        self.sites = list(dict.fromkeys(port.site for port in ports))
        self._means, self._max_norm = means, max_norm
        self._seed, self._n_sequences = seed, 0

    @torch.no_grad()
    def update(self, batch: TokenBatch, *, splice: bool) -> dict[str, CodedBatch]:
        """Measure a batch, and what it costs the model if ``splice``; returns what each coder made of it."""
        clean, prefixes = None, {}
        if splice:
            with ExitStack() as keeping:
                prefixes = {
                    sites: keeping.enter_context(keeping_prefix(self._model, sites)) for sites in self._written_sites
                }
                seen = self._model.run(batch.token_ids, self.sites)
            clean, activations = seen.logits, seen.activations
        else:
            activations = self._model.capture(batch.token_ids, self.sites)
        rows = rows_of(batch, activations, max_norm=self._max_norm)
        drawn = torch.Generator().manual_seed(self._seed * _SEEDS_APART + self._n_sequences)
        blocks_NT = self._blocks(batch)
        left = left_out(batch, rows, blocks_NT)
        found = {}
        for name, measures in self.coders.items():
            codes = measures.update(rows, activations, blocks_NT[rows.sequences, rows.positions])
            found[name] = CodedBatch(rows, codes)
            if len(left.kinds):
                measures.update_left_out(left, activations)
        if clean is not None:
            self._splice(batch, clean, activations, prefixes, blocks_NT, drawn)
        return found

    def skip(self, batch: TokenBatch) -> None:
        """Leave a batch to another process; blocks and draws of later ones stay what they are in a single process."""
        self._n_sequences += len(batch.token_ids)

    def compute(self) -> dict[str, Measured]:
        return {name: measures.compute() for name, measures in self.coders.items()}

    def _blocks(self, batch: TokenBatch) -> Int[Tensor, "N T"]:
        """The block of each token's document, or of its piece of a long one."""
        numbers = self._n_sequences + torch.arange(len(batch.token_ids))
        self._n_sequences += len(batch.token_ids)
        return blocks_of(batch.document_ids + (numbers // _PIECE)[:, None])

    @property
    def _written_sites(self) -> set[tuple[str, ...]]:
        return {_writes(measures.coder) for measures in self.coders.values()}

    def _splice(
        self,
        batch: TokenBatch,
        clean: Tensor,
        activations: Mapping[str, Tensor],
        prefixes: Mapping[tuple[str, ...], Sequence[Prefix]],
        blocks_NT: Int[Tensor, "N T"],
        generator: torch.Generator,
    ) -> None:
        """The coders read the model's own activations. Special tokens keep theirs under every replacement."""
        content = batch.is_content.flatten().nonzero().flatten()
        others = content[torch.randperm(len(content), generator=generator)]
        tokens = NextTokens(batch.token_ids, clean, batch.is_padding)
        blocks = blocks_NT[tokens.is_predicted]
        ablated: dict[tuple[str, ...], dict[str, TokenLosses]] = {}
        for measures in self.coders.values():
            sites = _writes(measures.coder)
            with after_prefix(self._model, prefixes[sites]):
                if sites not in ablated:
                    logits = self._ablated(batch, sites, activations, content, others)
                    ablated[sites] = dict(zip(logits, tokens.losses(*logits.values()), strict=True))
                replaced = written(measures.coder, activations)
                spliced = self._logits(batch, {site: lambda x, y=y: y.to(x.dtype) for site, y in replaced.items()})
            losses = {"spliced": tokens.losses(spliced)[0], **ablated[sites]}
            measures.spliced.update(ReplacedLosses(blocks, tokens.ce, losses))

    def _ablated(
        self,
        batch: TokenBatch,
        sites: Sequence[str],
        activations: Mapping[str, Tensor],
        content: Int[Tensor, " B"],
        others: Int[Tensor, " B"],
    ) -> dict[str, Float[Tensor, "N T V"]]:
        means = {site: lambda x, m=self._means[site]: m.to(x).expand_as(x) for site in sites}
        drawn = {site: _exchanged(activations[site], content, others) for site in sites}
        return {
            "zero_ablated": self._logits(batch, dict.fromkeys(sites, torch.zeros_like)),
            "mean_ablated": self._logits(batch, means),
            "resample_ablated": self._logits(batch, {site: lambda x, y=y: y.to(x) for site, y in drawn.items()}),
        }

    def _logits(self, batch: TokenBatch, changes: Mapping[str, Callable[[Tensor], Tensor]]) -> Float[Tensor, "N T V"]:
        is_special = ~batch.is_content.to(self._model.device)[..., None]
        with self._model.patch({site: _outside(is_special, change) for site, change in changes.items()}):
            return self._model.logits(batch.token_ids)


def _writes(coder: SparseCoder) -> tuple[str, ...]:
    return tuple(port.site for port in coder.wiring.writes)


def _exchanged(x: Float[Tensor, "N T D"], to: Int[Tensor, " B"], of: Int[Tensor, " B"]) -> Float[Tensor, "N T D"]:
    """The rows at some places replaced by those of others."""
    flat = x.flatten(0, 1).clone()
    flat[to.to(x.device)] = x.flatten(0, 1)[of.to(x.device)]
    return flat.view_as(x)


def _outside(is_special: Tensor, replacement: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.where(is_special, x, replacement(x))
