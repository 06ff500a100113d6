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
    model = LanguageModel.load(recipe.model.name, device=_device(recipe.model.device), dtype=recipe.model.dtype)
    check_context(model, recipe.packing)
    site = model.sites.resolve(recipe.site).name
    return Workbench(recipe, model, read_corpus(recipe.text), site)


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"model.device={name!r} cannot be used here; set model.device to auto or cpu") from error
    return name
