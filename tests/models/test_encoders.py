"""Encoders of text and images: loaded by the class that their config names, read and edited as language models are."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.models.families import tiny
from unweave.errors import UserError
from unweave.models.language_model import LanguageModel
from unweave.models.logit_lens import logit_effects

TEXT = ("bert", "roberta")
VISION = ("vit", "dinov2")
CLASSES = {"bert": "BertForMaskedLM", "roberta": "RobertaForMaskedLM", "vit": "ViTModel", "dinov2": "Dinov2Model"}


def _images(n: int) -> Tensor:
    return torch.randn(n, 3, 12, 12, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("family", [*TEXT, *VISION, "gpt2"])
def test_a_folder_is_loaded_by_the_class_that_its_config_names(family: str, tmp_path: Path) -> None:
    saved = tiny(family)
    saved.model.save_pretrained(tmp_path)
    loaded = LanguageModel.load(tmp_path)
    assert type(loaded.model).__name__ == CLASSES.get(family, "GPT2LMHeadModel")
    inputs = _images(2) if family in VISION else torch.randint(100, (2, 9))
    site = "layers.1.resid_post"
    assert torch.equal(loaded.capture(inputs, site)[site], saved.capture(inputs, site)[site])


def test_the_body_of_a_causal_model_alone_is_still_loaded_with_its_tied_head(tmp_path: Path) -> None:
    saved = tiny("gpt2")
    saved.model.transformer.save_pretrained(tmp_path)
    assert type(LanguageModel.load(tmp_path).model).__name__ == "GPT2LMHeadModel"


@pytest.mark.parametrize("family", TEXT)
def test_an_encoder_of_text_has_a_row_for_each_token_and_logits(family: str) -> None:
    lm, tokens = tiny(family), torch.randint(3, 100, (2, 9))
    with torch.no_grad():
        assert torch.equal(lm.logits(tokens), lm.model(input_ids=tokens).logits)
    x = lm.capture(tokens, ["layers.0.resid_mid", "layers.1.mlp.post"])
    assert [tuple(held.shape) for held in x.values()] == [(2, 9, 24), (2, 9, 50)]
    assert lm.width("layers.1.mlp.post") == 50


@pytest.mark.parametrize("family", TEXT)
def test_in_an_encoder_an_early_position_sees_an_edit_of_a_late_one(family: str) -> None:
    lm, tokens = tiny(family), torch.randint(3, 100, (1, 9))
    delta = torch.zeros(9, 24)
    delta[7] = 1.0
    clean = lm.logits(tokens)
    with lm.patch({"layers.0.resid_pre": lambda x: x + delta}):
        assert (lm.logits(tokens) - clean)[0, 0].abs().max() > 1e-3


@pytest.mark.parametrize("family", VISION)
def test_a_vision_model_has_a_row_for_each_patch_and_one_more(family: str) -> None:
    lm, images = tiny(family), _images(9)
    site = "layers.0.resid_post"
    x = lm.capture(images, site)[site]
    assert x.shape == (9, 3 * 3 + 1, 24)
    with torch.no_grad():
        states = lm.model(images, output_hidden_states=True).hidden_states
    torch.testing.assert_close(x, states[1], rtol=1e-5, atol=1e-5)
    assert torch.equal(lm.run(images, [site]).activations[site], states[1])
    assert lm.width(site) == 24


@pytest.mark.parametrize("family", VISION)
def test_a_model_without_logits_says_so_and_is_edited_all_the_same(family: str) -> None:
    lm, images = tiny(family), _images(2)
    with pytest.raises(UserError, match=f"{family} has no logits, it ends with hidden states"):
        lm.logits(images)
    clean = lm.run(images).output.last_hidden_state
    with lm.patch({"layers.0.attn_out": torch.zeros_like}):
        edited = lm.run(images).output.last_hidden_state
    assert (edited - clean).abs().max() > 1e-3


def test_an_image_classifier_has_logits_without_positions() -> None:
    from transformers import ViTConfig, ViTForImageClassification

    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 50}
    config = ViTConfig(**shape, image_size=12, patch_size=4, num_labels=5)
    lm = LanguageModel(ViTForImageClassification(config), None, "classifier")
    assert lm.logits(_images(2)).shape == (2, 5)
    assert lm.sites.n_layers == 2


def test_a_model_of_another_kind_of_input_is_told_apart() -> None:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    config = WhisperConfig(
        vocab_size=63,
        d_model=12,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=20,
        decoder_ffn_dim=20,
        num_mel_bins=8,
        max_source_positions=10,
        max_target_positions=10,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    lm = LanguageModel(WhisperForConditionalGeneration(config), None, "whisper")
    with pytest.raises(UserError, match="a whisper model reads input_features, not tokens or images of one size"):
        lm.sites.resolve("layers.0.resid_pre")


@pytest.mark.parametrize("family", ["bert", "vit"])
def test_no_tokens_are_promoted_where_there_is_no_final_norm_or_no_unembedding(family: str) -> None:
    assert logit_effects(tiny(family), "layers.1.resid_post", torch.randn(2, 24), 3) is None


def test_a_direction_in_a_gemma_is_scaled_by_one_plus_the_weight_of_its_norm() -> None:
    lm = tiny("gemma")
    directions = torch.randn(3, 24)
    tables = logit_effects(lm, "layers.1.resid_post", directions, 5)
    assert tables is not None
    weights = (directions * (1 + lm.model.model.norm.weight)) @ lm.model.lm_head.weight.T
    assert torch.equal(tables[0].token_ids, weights.topk(5).indices)


@pytest.mark.parametrize(("family", "is_carried"), [("llama", True), ("gemma2", False), ("bloom", True)])
def test_heads_promote_tokens_only_where_their_projection_writes_to_the_stream(family: str, is_carried: bool) -> None:
    lm = tiny(family)
    tables = logit_effects(lm, "layers.1.attn.z", torch.randn(3, 24), 5)
    assert (tables is not None) == is_carried
