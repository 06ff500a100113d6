"""Can a model be made to forget one kind of text by its latents, and keep another? An offline form of unlearning.

After Farrell et al. 2024 (arXiv 2410.19278) and SAEBench (2503.09532), with the next-token loss on two kinds of text in
the place of questions. On texts to learn from:

    candidates  latents that are active on less than a share s of the tokens to keep; the n of them that are active most
                often on the text to forget
    edit        where such a latent is active, it is set to -m times its mean activation there; the error is kept
    choice      of all s, n, m the one with the largest loss added on the text to forget, among those that add at most
                ``tolerance`` nats on the text to keep

The figures are those of the chosen edit on other texts: what it adds to the loss on either. Where no edit is harmless
enough, none is made, and both are 0. Of labelled texts, the first class is to forget and all others to keep.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from unweave.activations.harvest import rows_of
from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.evals.measured import Measured, Weightings
from unweave.evals.pooled import check_ablatable, check_coders
from unweave.evals.tasks import LabelledTexts
from unweave.metrics.base import N_BLOCKS, Definition
from unweave.models.language_model import Edit, LanguageModel, LatentEdit
from unweave.models.tokens import PackingConfig, pack
from unweave.types import Codes, Document, TokenBatch

DEFINITIONS = (
    Definition(
        "unlearning_forgotten",
        "Loss added on the text to forget",
        "Nats that the chosen edit of latents adds to the loss on other text of the kind to forget.",
        "as large as possible, where little is added on the text to keep",
    ),
    Definition(
        "unlearning_lost",
        "Loss added on the text to keep",
        "Nats that the chosen edit of latents adds to the loss on other text of the kind to keep.",
        "at most the tolerance",
    ),
)
SHARES = (0.001, 0.01)
NUMBERS = (10, 20)
MULTIPLES = (1.0, 5.0, 20.0)
_CONTEXT = 128
_SEQUENCES = 8
_BATCHES = 4
"""Batches of each kind of text of a task; every setting of the edit takes a pass over those to learn from."""


class Texts(NamedTuple):
    """Packed text of two kinds; no document is both learned from and measured on."""

    forget_learn: Sequence[TokenBatch]
    forget_check: Sequence[TokenBatch]
    keep_learn: Sequence[TokenBatch]
    keep_check: Sequence[TokenBatch]


class Chosen(NamedTuple):
    """Latents, and the value that each is set to where it is active."""

    latents: Int[Tensor, " n"]
    values: Float[Tensor, " n"]


class Losses(NamedTuple):
    """Sums over predicted tokens, by block of documents."""

    nats: Float[np.ndarray, " 64"]
    tokens: Float[np.ndarray, " 64"]

    @property
    def mean(self) -> float:
        return float(self.nats.sum() / self.tokens.sum())


def measure_unlearning(
    model: LanguageModel,
    coders: Mapping[str, SparseCoder],
    texts: Texts,
    *,
    tolerance: float = 0.01,
    shares: Sequence[float] = SHARES,
    numbers: Sequence[int] = NUMBERS,
    multiples: Sequence[float] = MULTIPLES,
) -> dict[str, Measured]:
    """The figures of several coders; ``tolerance`` is in nats a token, ``numbers`` are of latents."""
    check_ablatable(coders)
    check_coders(model, coders)
    for name, batches in texts._asdict().items():
        if not batches:
            raise UserError(f"there is no text as {name}; give some of both kinds, to learn from and to measure on")
    clean = {name: losses(model, batches) for name, batches in texts._asdict().items()}
    grid = list(itertools.product(shares, numbers, multiples))
    return {name: _of_coder(model, coder, texts, clean, grid, tolerance) for name, coder in coders.items()}


@torch.no_grad()
def losses(
    model: LanguageModel,
    batches: Iterable[TokenBatch],
    edit: Callable[[TokenBatch], Edit] | None = None,
    site: str = "",
) -> Losses:
    """Next-token losses, with an edit at a site where one is given; special tokens keep their rows."""
    nats, tokens = np.zeros(N_BLOCKS), np.zeros(N_BLOCKS)
    for batch in batches:
        if edit is None:
            logits = model.logits(batch.token_ids)
        else:
            with model.patch({site: edit(batch)}):
                logits = model.logits(batch.token_ids)
        predicted = logits[:, :-1].float().transpose(1, 2)
        loss = F.cross_entropy(predicted, batch.token_ids[:, 1:].to(predicted.device), reduction="none").cpu()
        is_text = torch.ones_like(loss, dtype=torch.bool) if batch.is_padding is None else ~batch.is_padding[:, 1:]
        blocks = (batch.document_ids[:, 1:] % N_BLOCKS)[is_text].numpy()
        nats += np.bincount(blocks, loss[is_text].double().numpy(), minlength=N_BLOCKS)
        tokens += np.bincount(blocks, minlength=N_BLOCKS)
    return Losses(nats, tokens)


def chosen_latents(
    forget_density_L: Float[Tensor, " L"],
    keep_density_L: Float[Tensor, " L"],
    mean_active_L: Float[Tensor, " L"],
    share: float,
    number: int,
    multiple: float,
) -> Chosen:
    """The candidates of one setting, the most frequent first; fewer where there are not so many that ever fire."""
    frequency_L = torch.where(keep_density_L < share, forget_density_L, 0.0)
    latents = frequency_L.argsort(descending=True, stable=True)[:number]
    latents = latents[frequency_L[latents] > 0]
    return Chosen(latents, -multiple * mean_active_L[latents])


def set_where_active(codes: Codes, chosen: Chosen) -> Codes:
    """Codes whose chosen latents have their new value on every row where they are active."""
    values_L = torch.full((codes.n_latents,), torch.nan).to(codes.values)
    values_L[chosen.latents.to(codes.values.device)] = chosen.values.to(codes.values)
    new = values_L[codes.latent_ids]
    return codes.with_values(torch.where(new.isnan() | (codes.values == 0), codes.values, new))


def measure_forgotten_classes(
    model: LanguageModel, coders: Mapping[str, SparseCoder], tasks: Sequence[LabelledTexts], *, tolerance: float = 0.01
) -> dict[str, Measured]:
    """The figures with the first class of each task to forget, averaged over tasks; errors as of tasks apart."""
    if not tasks:
        raise UserError("unlearning needs labelled texts of at least one task, got none")
    by_task = {
        f"{task.name}/{task.classes[0]}": measure_unlearning(model, coders, texts_of(model, task), tolerance=tolerance)
        for task in tasks
    }
    return {name: _over_tasks({task: found[name] for task, found in by_task.items()}) for name in coders}


def texts_of(model: LanguageModel, task: LabelledTexts) -> Texts:
    """Packed text of the first class, to forget, and of all others, to keep; the pieces of a document stay together."""
    parts = []
    for is_kept in (False, True):
        for is_test in (False, True):
            chosen = np.flatnonzero(((task.labels != 0) == is_kept) & (task.is_test == is_test))
            pieces: dict[int, list[str]] = {}
            for place in chosen:
                pieces.setdefault(int(task.documents[place]), []).append(task.texts[place])
            documents = [Document(f"{task.name}#{number}", "\n".join(texts)) for number, texts in pieces.items()]
            config = PackingConfig(context=min(_CONTEXT, model.max_context or _CONTEXT))
            parts.append(list(itertools.islice(pack(documents, model, config, _SEQUENCES), _BATCHES)))
    return Texts(*parts)


def _over_tasks(found: Mapping[str, Measured]) -> Measured:
    """The mean over tasks, whose errors are independent."""
    of_tasks = list(found.values())
    figures = {name: float(np.mean([its.figures[name] for its in of_tasks])) for name in of_tasks[0].figures}
    errors = {
        name: float(np.sqrt(np.sum([its.standard_errors[name] ** 2 for its in of_tasks])) / len(of_tasks))
        for name in figures
        if all(name in its.standard_errors for its in of_tasks)
    }
    details = {
        f"{task}/{name}": value for task, its in found.items() for name, value in {**its.figures, **its.details}.items()
    }
    return Measured(figures, errors, sum(its.n for its in of_tasks), details)


def _of_coder(
    model: LanguageModel,
    coder: SparseCoder,
    texts: Texts,
    clean: Mapping[str, Losses],
    grid: Sequence[tuple[float, int, float]],
    tolerance: float,
) -> Measured:
    forget_L, mean_active_L = _activity(model, coder, texts.forget_learn)
    keep_L, _ = _activity(model, coder, texts.keep_learn)
    settings = [chosen_latents(forget_L, keep_L, mean_active_L, *setting) for setting in grid]
    best, most = None, 0.0
    details = {}
    for setting, chosen in zip(grid, settings, strict=True):
        if not len(chosen.latents):
            continue
        lost = _edited(model, coder, texts.keep_learn, chosen).mean - clean["keep_learn"].mean
        forgotten = _edited(model, coder, texts.forget_learn, chosen).mean - clean["forget_learn"].mean
        name = "/".join(f"{value:g}" for value in setting)
        details |= {f"{name}/forgotten": forgotten, f"{name}/lost": lost}
        if lost <= tolerance and forgotten > most:
            best, most = chosen, forgotten
    added = {}
    used = np.zeros(N_BLOCKS, dtype=bool)
    for figure, part in (("unlearning_forgotten", "forget_check"), ("unlearning_lost", "keep_check")):
        before = clean[part]
        after = before if best is None else _edited(model, coder, getattr(texts, part), best)
        added[figure] = (after.nats - before.nats, before.tokens)
        used |= before.tokens > 0
    weightings = Weightings(used)
    weights_RB = weightings.weights(np.arange(N_BLOCKS))
    with np.errstate(invalid="ignore"):  # where all text of a kind is of one block, leaving it out leaves nothing
        figures = {name: (weights_RB @ nats) / (weights_RB @ tokens) for name, (nats, tokens) in added.items()}
    n_tokens = sum(int(clean[part].tokens.sum()) for part in ("forget_check", "keep_check"))
    return weightings.measured(figures, n_tokens, details)


def _edited(model: LanguageModel, coder: SparseCoder, batches: Sequence[TokenBatch], chosen: Chosen) -> Losses:
    edit = LatentEdit(coder, lambda codes: set_where_active(codes, chosen))

    def of_batch(batch: TokenBatch) -> Edit:
        is_content = batch.is_content[..., None].to(model.device)
        return lambda x: torch.where(is_content, edit(x), x)

    return losses(model, batches, of_batch, coder.site)


@torch.no_grad()
def _activity(
    model: LanguageModel, coder: SparseCoder, batches: Sequence[TokenBatch]
) -> tuple[Float[Tensor, " L"], Float[Tensor, " L"]]:
    """Share of the tokens on which each latent is active, and its mean activation there."""
    counts_L = torch.zeros(coder.n_latents, dtype=torch.float64)
    sums_L, n_rows = counts_L.clone(), 0
    for batch in batches:
        x = rows_of(batch, model.capture(batch.token_ids, coder.site)).activations[coder.site]
        codes = coder.encode(x.to(coder.W_dec.dtype))
        values, latents = codes.values.cpu().double(), codes.latent_ids.cpu()
        counts_L.index_add_(0, latents, (values != 0).double())
        sums_L.index_add_(0, latents, values)
        n_rows += len(x)
    return counts_L / max(1, n_rows), sums_L / counts_L.clamp(min=1)
