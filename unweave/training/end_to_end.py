"""End-to-end objectives: what the model says, and computes on the way, from what a coder writes.

With p the model's next-token distribution and q the one after the coder's reconstruction took the place of the
activations at its sites, the objective is

    reconstruction * E + kl * KL(p || q) + downstream * mean over later blocks of |a - a_hat|^2 / |a - mean(a)|^2

plus the coder's penalties as they are. E are the coder's own errors at its sites, on scaled rows; a is the residual
stream after a block, a_hat the same behind the splice, both squares summed over the content tokens of the batch. Tokens
that are no content keep what the model holds there. With kl alone this is Braun et al. 2024 (arXiv 2405.12241), their
variant with downstream reconstruction has a plain squared error in place of the share.

``balance`` replaces the first two terms by (r E + k KL (E / KL)) / (r + k), r and k the weights and E / KL held fixed:
as large as E alone, so that penalties which were chosen for local training fit. With r = k = 1 it is what Karvonen 2025
(arXiv 2503.17272) fine-tunes with.

A batch has whole sequences as its first axis: tokens, which of them are content, and from one pass of the model for all
coders its activations and logits. A coder reads the clean activations, which the splice cannot have changed where they
lie upstream of it; a crosscoder's later sites are read before any is replaced.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.activations.harvest import without_massive
from unweave.activations.sequences import CONTENT, TOKENS
from unweave.coders import CoderStep, SparseCoder
from unweave.coders.folding import Scaling
from unweave.errors import UserError
from unweave.models.language_model import LanguageModel
from unweave.training.kl import kl_divergence
from unweave.training.objective import Batch, Losses, Objective, ObjectiveConfig, RowsBySite
from unweave.training.trainee import Trainee

_LOGITS = "logits"
_TINY = 1e-12
"""Where a KL or a variance is 0, what is divided by it is 0 too."""


@final
class Spliced(Objective):
    """The model goes on from what one coder writes; see the module's docstring for the maths."""

    def __init__(self, config: ObjectiveConfig, model: LanguageModel, coder: SparseCoder) -> None:
        """Raise ``UserError`` where it has nothing to compare, or the coder could not learn from it."""
        assert config.needs_model
        if config.reconstruction == 0 and "gate_mse" in coder.reconstruction_losses:
            raise UserError("a gated coder's gates learn from its own errors; set objective.reconstruction above 0")
        wiring = coder.wiring
        self.config = config
        self.model = model
        self.sites = tuple(dict.fromkeys(port.site for port in wiring.reads + wiring.writes))
        """The sites that the coder reads and writes."""
        writes = [port.site for port in wiring.writes]
        self.downstream = streams_behind(model, writes) if config.downstream > 0 else ()
        """The sites that are compared behind the splice."""

    def rows(self, batch: Batch) -> RowsBySite:
        content_B = _content(batch, self.model.device)
        return {site: batch[site].flatten(0, 1)[content_B] for site in self.sites}

    def n_rows(self, batch: Batch) -> int:
        return int(batch[CONTENT].sum())

    def losses(self, trainee: Trainee, batch: Batch, step: CoderStep) -> Losses:
        content_B = _content(batch, self.model.device)
        written = written_by(trainee.coder, trainee.writes, step.reconstruction)
        with self.model.patch({site: _putting(rows, content_B) for site, rows in written.items()}):
            spliced = self.model.run(batch[TOKENS], self.downstream)
        terms = dict(step.losses)
        if self.config.kl > 0:
            terms["kl"] = kl_divergence(batch[_LOGITS], spliced.logits, batch[CONTENT])
        if self.downstream:
            shares = [
                _share_lost(batch[site].flatten(0, 1)[content_B], spliced.activations[site].flatten(0, 1)[content_B])
                for site in self.downstream
            ]
            terms["downstream"] = torch.stack(shares).mean()
        return Losses(self._total(trainee.coder, terms), terms)

    def _total(self, coder: SparseCoder, terms: dict[str, Tensor]) -> Float[Tensor, ""]:
        config, errors = self.config, coder.reconstruction_losses
        parts = [loss for name, loss in terms.items() if name not in (*errors, "kl", "downstream")]
        error = torch.stack([loss for name, loss in terms.items() if name in errors]).sum()
        if config.balance:
            size = (error / terms["kl"].clamp(min=_TINY)).detach()
            mixed = config.reconstruction * error + config.kl * size * terms["kl"]
            parts.append(mixed / (config.reconstruction + config.kl))
        else:
            if config.reconstruction > 0:
                parts.append(config.reconstruction * error)
            if config.kl > 0:
                parts.append(config.kl * terms["kl"])
        if config.downstream > 0:
            parts.append(config.downstream * terms["downstream"])
        return torch.stack(parts).sum()


def clean_passes(
    objectives: Sequence[Spliced], sequences: Iterable[Batch], *, max_norm: float = 0.0
) -> Iterator[Batch]:
    """Batches for coders with these objectives, from batches of tokens: one pass of the model as it is for all.

    ``max_norm``: rows whose norm is over so many times the median are no content, as in ``rows_of``.
    """
    model = objectives[0].model
    sites = list(dict.fromkeys(site for objective in objectives for site in objective.sites))
    behind = list(dict.fromkeys(site for objective in objectives for site in objective.downstream))
    for batch in sequences:
        with torch.no_grad():
            clean = model.run(batch[TOKENS], sites + behind)
        is_content_NT = batch[CONTENT]
        if max_norm:
            content_B = is_content_NT.flatten().nonzero().flatten()
            usual = without_massive(content_B, {site: clean.activations[site] for site in sites}, max_norm)
            flat = torch.zeros(is_content_NT.numel(), dtype=torch.bool).index_fill_(0, usual, 1)
            is_content_NT = flat.view_as(is_content_NT)
        yield {TOKENS: batch[TOKENS], CONTENT: is_content_NT, _LOGITS: clean.logits, **clean.activations}


def written_by(coder: SparseCoder, writes: Sequence[Scaling], y_hat_BD: Float[Tensor, "B D_write"]) -> RowsBySite:
    """What a coder in training writes at each of its sites, in the model's units; differentiable."""
    ports = coder.wiring.writes
    parts = y_hat_BD.split([port.width for port in ports], dim=1)
    return {port.site: s.inverse(part) for port, s, part in zip(ports, writes, parts, strict=True)}


def streams_behind(model: LanguageModel, sites: Sequence[str]) -> tuple[str, ...]:
    """The residual streams after those blocks that end behind the deepest of the sites."""
    names = model.sites.names()
    for site in sites:
        if site not in names:
            raise UserError(f"objective.downstream needs a named site, to know what is behind it, got {site}; set it 0")
    deepest = max(sites, key=names.index)
    found = tuple(name for name in names[names.index(deepest) + 1 :] if name.endswith(".resid_post"))
    if not found:
        raise UserError(f"objective.downstream has no effect: no block ends behind {deepest}; set it 0 and use kl")
    return found


def _content(batch: Batch, device: torch.device) -> Int[Tensor, " B"]:
    """Index of each content token, sequences joined end to end."""
    return batch[CONTENT].flatten().nonzero().flatten().to(device)


def _putting(rows_BD: Float[Tensor, "B D"], places_B: Int[Tensor, " B"]) -> Callable[[Tensor], Tensor]:
    """The edit that puts rows at some places and leaves the others."""
    return lambda x: x.flatten(0, 1).index_copy(0, places_B, rows_BD.to(x.dtype)).view_as(x)


def _share_lost(a_BD: Float[Tensor, "B D"], a_hat_BD: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """The share of the variance that is not explained."""
    wide = torch.promote_types(a_BD.dtype, torch.float32)
    a_BD, a_hat_BD = a_BD.to(wide), a_hat_BD.to(wide)
    return (a_hat_BD - a_BD).square().sum() / (a_BD - a_BD.mean(0)).square().sum().clamp(min=_TINY)
