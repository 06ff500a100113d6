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
