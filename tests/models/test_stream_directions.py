"""Directions of the stream against the model itself: a neuron adds its row, a token's logit is read along its own."""

import torch

from unweave.models.language_model import LanguageModel
from unweave.models.stream_directions import stream_directions


def test_a_neuron_adds_its_row_to_the_stream(lm: LanguageModel) -> None:
    rows = stream_directions(lm, "layers.1.resid_post")["neurons"]
    width = lm.width("layers.1.mlp.post")
    assert len(rows) == 2 * width, "those of both layers up to the site"
    tokens = torch.tensor([[3, 4]])

    def out(hidden: torch.Tensor) -> torch.Tensor:
        with lm.patch({"layers.1.mlp.post": lambda x: hidden.expand_as(x)}):
            return lm.capture(tokens, ["layers.1.mlp_out"])["layers.1.mlp_out"][0, 0]

    one = torch.zeros(width)
    one[5] = 1.0
    torch.testing.assert_close(out(one) - out(torch.zeros(width)), rows[width + 5], rtol=1e-3, atol=1e-4)


def test_a_push_along_the_row_of_a_token_raises_its_logit_most(lm: LanguageModel) -> None:
    """As the last norm sees it: logits of the stream, without the norm's bias, are its product with the rows."""
    rows = stream_directions(lm, "layers.2.resid_post")["unembedding"]
    x, step = torch.randn(rows.shape[1]), 1e3
    with lm.patch({"layers.2.resid_post": lambda stream: (step * x).expand_as(stream)}):
        logits = lm.logits(torch.tensor([[3]]))[0, 0]
    bias = getattr(lm.sites.final_norm(), "bias", None)
    if bias is not None:
        logits = logits - lm.model.get_output_embeddings().weight @ bias
    found = rows @ x
    assert torch.corrcoef(torch.stack([logits, found]))[0, 1] > 0.9999


def test_embeddings_are_those_of_the_model_and_inner_sites_have_none(lm: LanguageModel) -> None:
    found = stream_directions(lm, "layers.0.attn_out")
    assert torch.equal(found["embedding"], lm.model.get_input_embeddings().weight)
    assert "neurons" not in found, "no MLP has written yet"
    assert stream_directions(lm, "layers.0.mlp.post") == {}
