"""Coders that change every row on its own before they read it, and undo that in what they write."""

import pytest
import torch
from torch import Tensor

from unweave.coders import Port, Wiring
from unweave.coders.topk import TopK, TopKConfig
from unweave.models.language_model import LanguageModel, LatentEdit

X = torch.tensor([[1.0, 2.0, 3.0], [0.0, 3.0, 4.0]])


def one_latent(row_norm: str) -> TopK:
    """Reads the difference of the last and the first entry, and writes it back there."""
    wiring = Wiring((Port("here", 3),), (Port("here", 3),), row_norm=row_norm)
    coder = TopK(TopKConfig(n_latents=1, k=1, centre=False, decoder_norm="free"), wiring)
    with torch.no_grad():
        coder.W_enc.copy_(torch.tensor([[-0.5, 0.0, 0.5]]))
        coder.W_dec.copy_(torch.tensor([[-1.0, 0.0, 1.0]]))
        coder.b_dec.copy_(torch.tensor([0.0, 0.0, 0.1]))
    return coder


def test_a_layer_normed_row_is_read_in_units_of_its_spread() -> None:
    """[1, 2, 3] has mean 2 and, with D - 1, spread 1; it is read as [-1, 0, 1] and written as 2 plus that."""
    coder = one_latent("layer_norm")
    torch.testing.assert_close(coder.encode(X[:1]).values, torch.tensor([1.0]), rtol=0, atol=2e-5)
    torch.testing.assert_close(coder(X[:1]), torch.tensor([[1.0, 2.0, 3.1]]), rtol=0, atol=2e-5)


def test_a_row_of_another_spread_is_written_in_its_own_units() -> None:
    ten = 10 * X[:1] + 5
    coder = one_latent("layer_norm")
    torch.testing.assert_close(coder.encode(ten).values, torch.tensor([1.0]), rtol=0, atol=2e-5)
    torch.testing.assert_close(coder(ten), torch.tensor([[15.0, 25.0, 36.0]]), rtol=0, atol=2e-4)


def test_a_row_is_read_at_a_norm_of_the_root_of_its_width() -> None:
    """[0, 3, 4] has norm 5; at norm sqrt 3 its last entry is 4 sqrt 3 / 5, of which half is read."""
    coder = one_latent("sqrt_width")
    value = 0.5 * 4 * 3**0.5 / 5
    torch.testing.assert_close(coder.encode(X[1:]).values, torch.tensor([value]))
    written = torch.tensor([[-value, 0.0, value + 0.1]]) * 5 / 3**0.5
    torch.testing.assert_close(coder(X[1:]), written)


def test_what_is_decoded_is_in_units_of_the_normed_row() -> None:
    coder = one_latent("layer_norm")
    codes = coder.encode(X)
    torch.testing.assert_close(coder.decode(codes)[:, 2], codes.values + 0.1)


@pytest.mark.parametrize("row_norm", ["layer_norm", "sqrt_width"])
def test_an_edit_that_changes_nothing_gives_the_same_bits(gpt2: LanguageModel, tokens: Tensor, row_norm: str) -> None:
    site = "layers.1.resid_post"
    width = gpt2.width(site)
    coder = TopK(TopKConfig(n_latents=63, k=7), Wiring((Port(site, width),), (Port(site, width),), row_norm=row_norm))
    before = gpt2.logits(tokens)
    with gpt2.patch({site: LatentEdit(coder, lambda codes: codes)}):
        assert torch.equal(gpt2.logits(tokens), before)


def test_an_edited_latent_is_taken_away_in_units_of_the_row(gpt2: LanguageModel) -> None:
    coder = one_latent("layer_norm")
    x = (10 * X + 5)[None]
    off = LatentEdit(coder, lambda codes: codes.with_values(torch.zeros_like(codes.values)))
    spread = x[0].std(dim=1, keepdim=True)
    removed = coder.encode(x[0]).values[:, None] * coder.W_dec * spread
    torch.testing.assert_close(off(x)[0], x[0] - removed, rtol=0, atol=1e-5)
