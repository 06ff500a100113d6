"""Short names of published dictionaries say what to fetch and where it belongs."""

import pytest

from unweave.errors import UserError
from unweave.formats.dictionaries import Place, formats
from unweave.formats.releases import find, releases

FOUND = {
    "gpt2-small-res-jb/blocks.8.hook_resid_pre": (
        "jbloom/GPT2-Small-SAEs-Reformatted",
        "blocks.8.hook_resid_pre",
        Place("gpt2", "blocks.8.hook_resid_pre:centred"),
        "saelens",
    ),
    "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82": (
        "google/gemma-scope-2b-pt-res",
        "layer_12/width_16k/average_l0_82",
        Place("google/gemma-2-2b"),
        "gemma_scope",
    ),
    "gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical": (
        "google/gemma-scope-2b-pt-res",
        "layer_12/width_16k/average_l0_82",
        Place("google/gemma-2-2b"),
        "gemma_scope",
    ),
    "gemma-scope-2-1b-it-res-all/layer_9_width_262k_l0_small": (
        "google/gemma-scope-2-1b-it",
        "resid_post_all/layer_9_width_262k_l0_small",
        Place(),
        "gemma_scope_2",
    ),
    "llama_scope_lxr_8x/l15r_8x": (
        "fnlp/Llama3_1-8B-Base-LXR-8x",
        "Llama3_1-8B-Base-L15R-8x",
        Place("meta-llama/Llama-3.1-8B"),
        "llama_scope",
    ),
    "llama_scope_r1_distill/l5r_400m_slimpajama_400m_openr1_math": (
        "fnlp/Llama-Scope-R1-Distill",
        "400M-Slimpajama-400M-OpenR1-Math-220k/L5R",
        Place("deepseek-ai/DeepSeek-R1-Distill-Llama-8B"),
        "llama_scope",
    ),
    "openai-gpt2-small-v5_32k/resid_post_mlp/8": (
        "https://openaipublic.blob.core.windows.net/sparse-autoencoder/gpt2-small",
        "resid_post_mlp_v5_32k/autoencoders/8.pt",
        Place("gpt2"),
        "openai",
    ),
    "sae_bench_gemma-2-2b_topk_width-2pow12_date-1109/blocks.5.hook_resid_post__trainer_5_step_9765": (
        "canrager/saebench_gemma-2-2b_width-2pow12_date-1109",
        "gemma-2-2b_topk_width-2pow12_date-1109/resid_post_layer_5_checkpoints/trainer_5_step_9765",
        Place("google/gemma-2-2b"),
        "dictionary_learning",
    ),
    "pythia-70m-deduped-res-sm/blocks.0.hook_resid_pre": (
        "ctigges/pythia-70m-deduped__res-sm_processed",
        "e-res-sm",
        Place("EleutherAI/pythia-70m-deduped"),
        "saelens",
    ),
    "mwhanna-qwen3-4b-transcoders/layer_7": (
        "mwhanna/qwen3-4b-transcoders",
        "layer_7.safetensors",
        Place("Qwen/Qwen3-4B", "blocks.7.mlp.hook_in", "blocks.7.hook_mlp_out"),
        "circuit_tracer",
    ),
    "goodfire-llama-3.1-8b-instruct": (
        "Goodfire/Llama-3.1-8B-Instruct-SAE-l19",
        "Llama-3.1-8B-Instruct-SAE-l19.pth",
        Place("meta-llama/Llama-3.1-8B-Instruct"),
        "goodfire",
    ),
    "hf:EleutherAI/sae-pythia-70m-32k/layers.3": ("EleutherAI/sae-pythia-70m-32k", "layers.3", Place(), ""),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_short_name_says_where_a_dictionary_is_and_belongs(name: str) -> None:
    found = find(name)
    assert (found.repository, found.path, found.place, found.format) == FOUND[name]


def test_what_is_fetched_is_what_the_format_needs() -> None:
    found = find("gpt2-small-hook-z-kk/blocks.8.hook_z")
    weights, config = found.files
    assert weights.endswith("_v6.pt") and config == weights.removesuffix(".pt") + "_cfg.json"
    assert found.place.site == "blocks.8.attn.hook_z"
    assert find("sae-pythia-70m-32k/layers.3").files == ("layers.3/cfg.json", "layers.3/sae.safetensors")
    assert find("sae-pythia-70m-32k/layers.3").optional == ("config.json",)


def test_the_name_of_some_releases_alone_is_all_of_them() -> None:
    found = find("clt-llama-3.2-1b-524k")
    assert found.path == "" and len(found.files) == 32
    assert found.files[:2] == ("W_enc_0.safetensors", "W_dec_0.safetensors")
    assert find("mwhanna-qwen3-4b-transcoders").place.site == "blocks.{layer}.mlp.hook_in"


@pytest.mark.parametrize("name", releases())
def test_every_release_is_of_a_known_format_and_has_what_it_needs(name: str) -> None:
    release = releases()[name]
    assert release.format in formats()
    assert "/" in release.repository and "{" not in release.repository + release.name + release.model
    assert release.files and release.paths
    for id, path in release.paths.items():
        assert path.count("{") <= id.count("{") + ("{l0}" in path)
    if release.layers:
        assert "{layer}" in release.id
    if release.whole:
        assert find(name).files


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpt2-small-res-jp", "no release 'gpt2-small-res-jp'; did you mean 'gpt2-small-res-jb'"),
        ("gpt2-small-res-jb", "say which dictionary .* as gpt2-small-res-jb/blocks.<layer>.hook_resid_<point>"),
        ("gpt2-small-res-jb/blocks.12.hook_resid_pre", "no layer 12; it has layers 0 to 11"),
        ("gpt2-small-res_sce-ajt/blocks.3.hook_resid_pre", "no layer 3; it has layers 2, 6, 10"),
        ("gpt2-small-res-jb/layer_3", r"no dictionary 'layer_3'.* look like blocks\.\{layer\}"),
        ("gemma-2b-res-jb/blocks.1.hook_resid_post", "no dictionary 'blocks.1.hook_resid_post'; did you mean"),
        ("gemma-scope-2b-pt-res-canonical/layer_3/width_1m/canonical", "some layers of widths 16k"),
        ("gemma-scope-2b-pt-res-canonical/layer_3/width_2m/canonical", "some layers of widths 16k"),
        ("gemma-scope-2b-pt-res/layer_1/../../../x", "no dictionary"),
        ("hf:nothing", "no place on the hub; give hf:owner/repository/folder"),
        ("hf:a/b/../c", "no place on the hub"),
        ("", "no release ''"),
    ],
)
def test_an_unknown_name_is_an_error_that_says_what_there_is(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        find(name)
    assert "\n" not in str(error.value)


MLP_OUT = "sae_group_gpt2_blocks.{}.hook_mlp_out_24576:{}"
CORRECTED = {
    f"gpt2-small-mlp-tm/blocks.{layer}.hook_mlp_out": (
        "tommmcgrath/gpt2-small-mlp-out-saes",
        MLP_OUT.format(layer, version),
        {"norm_scaling_factor": factor},
    )
    for layer, version, factor in (
        (0, "v1", 1.049317316132615),
        (1, "v0", 2.3693984005104283),
        (2, "v0", 1.6411934982190302),
        (3, "v0", 1.8958522157897557),
        (4, "v0", 1.81673478700627),
        (5, "v0", 1.550234472245924),
        (6, "v0", 1.3237742807210804),
        (7, "v0", 1.1042905114723296),
        (8, "v1", 0.9123762783479742),
        (9, "v0", 0.6955335635232373),
        (10, "v0", 0.3619728926727644),
        (11, "v2", 0.2851548652550073),
    )
}
CORRECTED |= {
    f"mistral-7b-res-wg/blocks.{layer}.hook_resid_pre": (
        "JoshEngels/Mistral-7B-Residual-Stream-SAEs",
        f"mistral_7b_layer_{layer}",
        {"normalize_activations": "constant_norm_rescale"},
    )
    for layer in (8, 16, 24)
}
CORRECTED |= {
    f"gemma-2b-res-jb/blocks.{layer}.hook_resid_post": (
        "jbloom/Gemma-2b-Residual-Stream-SAEs",
        f"gemma_2b_blocks.{layer}.hook_resid_post_16384{ending}",
        config,
    )
    for layer, ending, config in (
        (0, "_anthropic", {}),
        (6, "_anthropic_fast_lr", {}),
        (10, "", {}),
        (12, "", {"norm_scaling_factor": 0.21381938399317255}),
        (17, "", {}),
    )
}
CORRECTED |= {
    f"temporal-sae-{name}/blocks.{layer}.hook_resid_post": (
        "canrager/temporalSAEs",
        f"{folder}/layer_{layer}/temporal",
        {},
    )
    for name, folder, layer in (
        ("gemma-2-2b", "gemma-2-2B", 12),
        ("llama-3.1-8b", "llama-3.1-8B", 15),
        ("llama-3.1-8b", "llama-3.1-8B", 26),
    )
}
"""As in the directory of SAELens 6.54, with what it puts over configs."""


@pytest.mark.parametrize("name", CORRECTED)
def test_a_release_says_what_its_configs_do_not(name: str) -> None:
    found = find(name)
    assert (found.repository, found.path, dict(found.config)) == CORRECTED[name]


@pytest.mark.parametrize("name", releases())
def test_configs_are_corrected_by_settings_that_the_format_knows(name: str) -> None:
    release = releases()[name]
    for config in (release.config, *release.configs.values()):
        assert config.keys() <= set(getattr(formats()[release.format], "CORRECTIONS", ()))
    for id in release.configs:
        assert find(f"{name}/{id}").config == {**release.config, **release.configs[id]}
