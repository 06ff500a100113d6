"""What training and measuring both need: the model on its device, the text, and the token batches of a recipe."""

import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from unweave.activations.ahead import ahead
from unweave.activations.harvest import rows_of
from unweave.errors import UserError
from unweave.formats.documents import Corpus, Documents, Told
from unweave.formats.texts import read_corpus
from unweave.formats.token_file import write_token_file
from unweave.models.language_model import LanguageModel
from unweave.models.tokenising import tokenised
from unweave.models.tokens import check_context, pack
from unweave.pipelines.recipe import Recipe, read_job
from unweave.storage.run_folder import Run
from unweave.training.ranks import Ranks
from unweave.types import Document, Part, Rows, TextPosition, TokenBatch

MEASURING = ("evaluation.", "text.", "model.device", "model.sequences", "model.spread")
"""Beginnings of the settings that may differ from those of the training when its coder is measured."""
SEQUENCES = 8
"""Sequences that are read at once when a coder is measured or indexed; the logits of all of them are held."""
_WHOLE = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_in", "mlp_out")
"""Points of a block where each process has all of the activations of a model that is spread over processes."""


class Places(NamedTuple):
    """Canonical names of the sites that a coder reads and writes."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True)
class Workbench:
    """A loaded model and text, checked against the recipe."""

    recipe: Recipe
    model: LanguageModel
    corpus: Corpus

    def places(self, recipe: Recipe) -> Places:
        """Where a coder of this recipe reads and writes; raises ``UserError`` for sites that the model lacks."""
        reads = tuple(self.model.sites.resolve(site).name for site in recipe.sites)
        writes = (self.model.sites.resolve(recipe.target).name,) if recipe.target else reads
        if len(set(reads)) < len(reads) or (recipe.target and reads == writes):
            raise UserError(f"the sites of a coder must differ, got {', '.join(dict.fromkeys(reads + writes))}")
        return Places(reads, writes)

    def token_batches(self, documents: Iterable[Document], sequences: int | None = None) -> Iterator[TokenBatch]:
        """Packed batches of the documents, by default as many sequences at once as the recipe says."""
        return pack(documents, self.model, self.recipe.packing, sequences or self.recipe.model.sequences)

    def held_out(self, n_tokens: int) -> Iterator[TokenBatch]:
        """Batches of held-out text with so many content tokens in all, or less where the text ends."""
        return up_to(self.token_batches(self.corpus.held_out, SEQUENCES), n_tokens)

    def training_batches(
        self,
        start: TextPosition = TextPosition(),  # noqa: B008  # it cannot be changed
        told: Told | None = None,
        part: Part = Part(),  # noqa: B008
    ) -> Generator[TokenBatch, None, None]:
        """Packed batches of the text to train on, without end, from a position in it; tokenised ahead in a thread.

        Of a ``part`` of the text: its documents, by which the position counts too. ``told`` hears of every source that
        ends and is read again. Close the generator to end the thread.
        """
        documents = self.corpus.train.forever(start.document * part.of + part.number, told)
        if part.of > 1:
            documents = itertools.islice(documents, 0, None, part.of)
        return ahead(pack(documents, self.model, self.recipe.packing, self.recipe.model.sequences, start))

    def write_tokens(self, path: Path, max_tokens: int | None = None) -> int:
        """Write the text as a file for ``text.source = "tokens:<path>"``; returns the number of tokens.

        ``max_tokens``: ends the documents to train on, and those held out, with the document that reaches it.
        """
        train, held_out = (tokenised(part, self.model.tokenizer) for part in self.corpus)
        sources = [source.source for source in self.recipe.text.sources()]
        return write_token_file(
            path, train, self.model.tokenizer, held_out=held_out, sources=sources, max_tokens=max_tokens
        )

    def rows(self, batch: TokenBatch, sites: Sequence[str]) -> Rows:
        """The model's rows at some sites for a batch of the text."""
        return rows_of(batch, self.model.capture(batch.token_ids, sites), max_norm=self.recipe.packing.max_norm)


def bench_of(
    run: Run, overrides: Sequence[str], allowed: Sequence[str] = MEASURING, verb: str = "evaluate"
) -> Workbench:
    """The model and text of a run, with overrides of what may differ from those of the training.

    ``allowed``: beginnings of such settings; ``verb``: what they are given to, for the ``UserError`` on others.
    """
    if wrong := [override for override in overrides if not override.startswith(tuple(allowed))]:
        raise UserError(f"{wrong[0]!r} would change what was trained; {verb} takes {', '.join(allowed)} settings")
    return set_up(read_job(str(run.path / "config.toml"), list(overrides)).recipe)


def up_to(batches: Iterable[TokenBatch], n_tokens: int) -> Iterator[TokenBatch]:
    """Batches until so many content tokens were given out, or they end."""
    seen = 0
    for batch in batches:
        yield batch
        seen += int(batch.is_content.sum())
        if seen >= n_tokens:
            return


def set_up(recipe: Recipe, ranks: Ranks | None = None) -> Workbench:
    """Load the model and the text; what can be wrong with either is found here, before work begins."""
    spread = None if recipe.model.spread == "no" else "devices"
    if recipe.model.spread == "processes":
        if ranks is None:
            raise UserError('model.spread="processes" is for a training by torchrun; set model.spread=no')
        spread = ranks.mesh_of_latents
    device = device_of(recipe)
    model = LanguageModel.load(recipe.model.name, device=device, dtype=recipe.model.dtype, spread=spread)
    check_context(model, recipe.packing)
    bench = Workbench(recipe, model, read_corpus(recipe.text, model.tokenizer))
    _check_whole(bench.places(recipe), recipe)
    for part, documents in (("to train on", bench.corpus.train), ("held out", bench.corpus.held_out)):
        _check_text(bench, part, documents)
    return bench


def _check_whole(places: Places, recipe: Recipe) -> None:
    for site in places.reads + places.writes if recipe.model.spread == "processes" else ():
        if site.partition(":")[0].rpartition(".")[2] not in _WHOLE:
            raise UserError(f"at {site} each process has a part of the activations; set model.spread to devices or no")


def device_of(recipe: Recipe) -> str:
    """Where model and coders run."""
    if recipe.model.device != "auto":
        return recipe.model.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _check_text(bench: Workbench, part: str, documents: Documents) -> None:
    try:
        batch = next(bench.token_batches(documents, sequences=1))
    except UserError as error:
        raise UserError(f"of the documents {part}: {error}") from error
    if not batch.is_content.any():
        raise UserError(f"the first sequence of the documents {part} holds special tokens only; check text.source")
