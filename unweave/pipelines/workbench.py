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
    site: str
    """Canonical name of the recipe's site."""

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
    bench = Workbench(recipe, model, read_corpus(recipe.text), model.sites.resolve(recipe.site).name)
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
