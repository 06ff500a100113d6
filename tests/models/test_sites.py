import pytest

from unweave.errors import UserError
from unweave.models.language_model import LanguageModel

POINTS = ["resid_pre", "resid_mid", "resid_post", "attn_out", "attn.z", "mlp_in", "mlp.post", "mlp_out"]
ALIASES = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "attn.hook_z": "attn.z",
    "mlp.hook_post": "mlp.post",
    "hook_mlp_in": "resid_mid",
}


def test_every_family_has_every_point_of_every_block(lm: LanguageModel) -> None:
    assert set(lm.sites.names()) == {f"layers.{layer}.{point}" for layer in range(3) for point in POINTS}
    assert len(lm.sites.names()) == 3 * len(POINTS)


def test_a_canonical_name_resolves_to_itself_and_to_a_module_that_exists(lm: LanguageModel) -> None:
    for name in lm.sites.names():
        site = lm.sites.resolve(name)
        assert site.name == name
        lm.model.get_submodule(site.module)
        assert site.side in ("in", "out", "stream")


@pytest.mark.parametrize(("alias", "point"), ALIASES.items())
def test_a_transformer_lens_name_means_the_same_site(lm: LanguageModel, alias: str, point: str) -> None:
    assert lm.sites.resolve(f"blocks.1.{alias}") == lm.sites.resolve(f"layers.1.{point}")


def test_a_bare_module_path_is_its_output_unless_it_says_in(gpt2: LanguageModel) -> None:
    assert gpt2.sites.resolve("transformer.h.1.mlp") == gpt2.sites.resolve("transformer.h.1.mlp:out")
    assert gpt2.sites.resolve("transformer.h.1.mlp:in") == ("transformer.h.1.mlp:in", "transformer.h.1.mlp", "in")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "layers.1.resid_pots",
            r"no site 'layers\.1\.resid_pots'; did you mean 'layers\.1\.resid_post'.*layers are 0 to 2",
        ),
        ("layers.3.resid_post", r"no site 'layers\.3\.resid_post'.*its layers are 0 to 2"),
        ("layers.-1.resid_post", r"no site.*its layers are 0 to 2"),
        ("blocks.3.hook_resid_post", r"no site.*its layers are 0 to 2"),
        ("blocks.1.hook_resid_posts", r"no site.*its layers are 0 to 2"),
        ("transformer.h.1.mpl", r"no site.*did you mean 'transformer\.h\.1\.mlp'"),
        ("transformer.h.1.mlp:inside", r"no site"),
        ("", r"no site ''"),
    ],
)
def test_an_unknown_site_is_an_error_with_near_names_and_the_layers(
    gpt2: LanguageModel, name: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        gpt2.sites.resolve(name)


@pytest.mark.parametrize("name", ["layers.01.resid_post", "layers.٢.resid_post"])
def test_a_layer_is_written_in_one_way_only(gpt2: LanguageModel, name: str) -> None:
    """Otherwise one site has two names, or names a module that does not exist."""
    with pytest.raises(UserError, match="no site"):
        gpt2.sites.resolve(name)


def test_layers_past_the_ninth_are_found() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=7, n_layer=11, n_embd=4, n_head=2, n_positions=7, bos_token_id=0, eos_token_id=0)
    deep = LanguageModel(GPT2LMHeadModel(config), None, "deep")
    assert deep.sites.n_layers == 11
    assert deep.sites.resolve("layers.10.attn_out").module == "transformer.h.10.attn"


def test_the_final_norm_is_found(lm: LanguageModel) -> None:
    assert lm.sites.final_norm() in list(lm.model.modules())


def test_a_family_that_is_not_known_still_has_its_module_paths() -> None:
    from transformers import OPTConfig, OPTForCausalLM

    shape = {
        "hidden_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "ffn_dim": 20,
        "word_embed_proj_dim": 12,
    }
    opt = LanguageModel(OPTForCausalLM(OPTConfig(vocab_size=63, **shape, max_position_embeddings=7)), None, "opt")
    assert opt.sites.names() == []
    assert opt.sites.final_norm() is None
    assert opt.width("model.decoder.layers.1.self_attn.v_proj") == 12
    with pytest.raises(UserError, match=r"this opt model has no site 'layers\.0\.resid_post'"):
        opt.sites.resolve("layers.0.resid_post")
