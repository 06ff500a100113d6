"""What training and measuring both need: the model on its device, the text, and the token batches of a recipe."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from unweave.errors import UserError
from unweave.formats.texts import Corpus, read_corpus
from unweave.models.language_model import LanguageModel
from unweave.models.tokens import check_context, pack
from unweave.pipelines.recipe import Recipe
from unweave.types import Document, TokenBatch


@dataclass(frozen=True)
class Workbench:
    """A loaded model and text, checked against the recipe."""

    recipe: Recipe
    model: LanguageModel
    corpus: Corpus
    reads: tuple[str, ...]
    """Canonical names of the sites that the coder reads."""
    writes: tuple[str, ...]
    """Canonical names of the sites that it writes."""

    @property
    def sites(self) -> list[str]:
        """All sites that are captured."""
        return list(dict.fromkeys(self.reads + self.writes))

    def token_batches(self, documents: Iterable[Document], sequences: int | None = None) -> Iterator[TokenBatch]:
        """Packed batches of the documents, by default as many sequences at once as the recipe says."""
        return pack(documents, self.model, self.recipe.packing, sequences or self.recipe.model.sequences)


def set_up(recipe: Recipe) -> Workbench:
    """Load the model and the text; everything that can be wrong with either is found here, before work begins."""
    device = recipe.model.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = LanguageModel.load(recipe.model.name, device=device, dtype=recipe.model.dtype)
    check_context(model, recipe.packing)
    reads = tuple(model.sites.resolve(site).name for site in recipe.sites)
    writes = (model.sites.resolve(recipe.target).name,) if recipe.target else reads
    if len(set(reads)) < len(reads) or (recipe.target and reads == writes):
        raise UserError(f"the sites of a coder must differ, got {', '.join(dict.fromkeys(reads + writes))}")
    bench = Workbench(recipe, model, read_corpus(recipe.text), reads, writes)
    for part, documents in (("to train on", bench.corpus.train), ("held out", bench.corpus.held_out)):
        _check_text(bench, part, documents)
    return bench


def _check_text(bench: Workbench, part: str, documents: list[Document]) -> None:
    try:
        batch = next(bench.token_batches(documents, sequences=1))
    except UserError as error:
        raise UserError(f"of the documents {part}: {error}") from error
    if not batch.is_content.any():
        raise UserError(f"the first sequence of the documents {part} holds special tokens only; check text.source")
