"""Promoted tokens against the model itself: adding a direction before the last norm moves these logits most."""

import pytest
import torch

from unweave.models.language_model import LanguageModel
from unweave.models.logit_lens import logit_effects


def test_a_large_push_along_a_direction_ranks_the_vocabulary_as_told(lm: LanguageModel) -> None:
    """With the direction as the whole stream, logits are an increasing function of the lens's weights."""
    d_model = lm.width("layers.2.resid_post")
    directions = torch.randn(7, d_model)
    tables = logit_effects(lm, "layers.2.resid_post", directions, 5)
    assert tables is not None
    norm_bias = getattr(lm.sites.final_norm(), "bias", None)
    for i, direction in enumerate(directions):
        with lm.patch({"layers.2.resid_post": lambda x, d=direction: (1000 * d).expand_as(x)}):
            logits = lm.logits(torch.tensor([[3]]))[0, 0]
        if norm_bias is not None:
            logits = logits - lm.model.get_output_embeddings().weight @ norm_bias
        assert logits.topk(5).indices.tolist() == tables[0].token_ids[i].tolist()
        assert (-logits).topk(5).indices.tolist() == tables[1].token_ids[i].tolist()


@pytest.mark.parametrize(
    ("site", "out"), [("layers.1.attn.z", "layers.1.attn_out"), ("layers.1.mlp.post", "layers.1.mlp_out")]
)
def test_a_site_inside_a_sublayer_is_carried_through_its_output_projection(
    lm: LanguageModel, site: str, out: str
) -> None:
    directions = torch.randn(3, lm.width(site))

    def written(rows: torch.Tensor) -> torch.Tensor:
        tokens = torch.tensor([[3], [4], [5]])
        with lm.patch({site: lambda x: rows[:, None].expand_as(x)}):
            return lm.capture(tokens, [out])[lm.sites.resolve(out).name][:, 0]

    stream = written(directions) - written(torch.zeros_like(directions))
    inside = logit_effects(lm, site, directions, 4)
    outside = logit_effects(lm, out, stream, 4)
    assert inside is not None and outside is not None
    torch.testing.assert_close(inside[0].weights, outside[0].weights, rtol=1e-4, atol=1e-4)
    assert torch.equal(inside[0].token_ids, outside[0].token_ids)


def test_a_site_that_does_not_write_to_the_stream_promotes_nothing(lm: LanguageModel) -> None:
    assert logit_effects(lm, "layers.0.mlp_in", torch.randn(2, lm.width("layers.0.mlp_in")), 3) is None
