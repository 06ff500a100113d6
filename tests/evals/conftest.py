"""The embedded model and the documents that every Python carries, loaded once."""

import pytest
import torch

from unweave.coders import SparseCoder, Wiring, architecture
from unweave.formats.stdlib_corpus import stdlib_documents
from unweave.models.language_model import LanguageModel
from unweave.types import Document

SITE = "layers.2.resid_post"


@pytest.fixture(scope="session")
def documents() -> list[Document]:
    return stdlib_documents()


@pytest.fixture(scope="session")
def pylm() -> LanguageModel:
    return LanguageModel.load()


@pytest.fixture(scope="session")
def small_coder(pylm: LanguageModel) -> SparseCoder:
    """63 latents about a mean row, decoder rows of all lengths: it explains a part, and leaves an error."""
    width = pylm.width(SITE)
    cls = architecture("topk")
    coder = cls(cls.Config(n_latents=63, k=7, decoder_norm="free"), Wiring.sae(width, SITE))
    generator = torch.Generator().manual_seed(63)
    with torch.no_grad():
        coder.W_enc.copy_(torch.randn(63, width, generator=generator))
        coder.W_dec.copy_(coder.W_enc * torch.rand(63, 1, generator=generator) / width)
        coder.b_dec.copy_(torch.randn(width, generator=generator))
    return coder.eval().requires_grad_(False)
