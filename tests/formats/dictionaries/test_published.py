"""Dictionaries in published layouts behave as where they come from, know where they belong, and are told apart."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from unweave.coders import Origin, Port, SparseCoder
from unweave.formats.dictionaries import Place, formats, read_dictionaries
from unweave.formats.native import read_coder, write_coder

from . import golden_cases, published_cases
from .published_cases import cases, expected, folder, read
from .verified import verified

CLOSE = {"rtol": 0.0, "atol": 1e-5}


def _outputs(coders: list[SparseCoder], written: list[Tensor]) -> dict[str, Tensor]:
    """What several coders write together at each site."""
    sums: dict[str, Tensor] = {}
    for coder, y in zip(coders, written, strict=True):
        widths = [port.width for port in coder.wiring.writes]
        for port, part in zip(coder.wiring.writes, y.split(widths, dim=1), strict=True):
            sums[port.site] = sums.get(port.site, 0.0) + part
    return sums


@pytest.mark.parametrize(("format", "case"), cases())
def test_a_published_layout_behaves_as_where_it_comes_from(format: str, case: str) -> None:
    coders, wanted = list(read(format, case).values()), expected(format, case)
    if "reconstruction" in wanted:
        wanted = {"x": wanted["x"][None], "codes": wanted["codes"][None], "outputs": wanted["reconstruction"][None]}
    assert len(coders) == len(wanted["x"])
    codes = [coder.encode(x) for coder, x in zip(coders, wanted["x"], strict=True)]
    for found, right in zip(codes, wanted["codes"], strict=True):
        torch.testing.assert_close(found.dense(), right, **CLOSE)
    written = [coder.reconstruct(c, x) for coder, c, x in zip(coders, codes, wanted["x"], strict=True)]
    if len(coders) == 1:
        torch.testing.assert_close(written[0], wanted["outputs"][0], **CLOSE)
        return
    for found, right in zip(_outputs(coders, written).values(), wanted["outputs"], strict=True):
        torch.testing.assert_close(found, right, **CLOSE)


@pytest.mark.parametrize(("format", "case"), cases())
def test_a_published_layout_is_of_one_format_only(format: str, case: str) -> None:
    path = folder(format, case)
    assert [name for name, known in formats().items() if known.recognises(path)] == [format]
    for file in path.rglob("*.*"):
        recognised = [name for name, known in formats().items() if known.recognises(file)]
        assert recognised in ([], [format]), file


@pytest.mark.parametrize(("format", "case"), cases())
def test_what_is_read_is_finished_and_can_be_kept(format: str, case: str, tmp_path: Path) -> None:
    for name, coder in read(format, case, published_cases.PLACE).items():
        assert not coder.training and not any(parameter.requires_grad for parameter in coder.parameters())
        assert coder.origin is not None and coder.origin.model == "some/model"
        assert all(port.site for port in coder.wiring.reads + coder.wiring.writes)
        write_coder(tmp_path / name, coder)
        again = read_coder(tmp_path / name)
        assert (again.config, again.wiring) == (coder.config, coder.wiring)
        assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in coder.state_dict().items())


SITES = [
    ("gemma_scope/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82", "blocks.12.hook_resid_post", ""),
    ("gemma_scope/gemma-scope-9b-pt-att/layer_3/width_16k/average_l0_5", "blocks.3.attn.hook_z", ""),
    ("gemma_scope/gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", "hook_embed", ""),
    (
        "gemma_scope/gemma-scope-2b-pt-transcoders/layer_7/width_16k/average_l0_76",
        "blocks.7.ln2.hook_normalized",
        "blocks.7.hook_mlp_out",
    ),
    ("gemma_scope_2/gemma-scope-2-1b-pt/resid_post/layer_13_width_16k_l0_big", "blocks.13.hook_resid_post", ""),
    (
        "gemma_scope_2/gemma-scope-2-1b-pt/transcoder/layer_13_width_16k_l0_big_affine",
        "layers.13.mlp_in",
        "blocks.13.hook_mlp_out",
    ),
    ("llama_scope/Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L15R-8x", "blocks.15.hook_resid_post", ""),
    ("openmoss/jumprelu_transcoder", "blocks.2.ln2.hook_normalized", "blocks.2.hook_mlp_out"),
    ("openai/gpt2-small/resid_delta_mlp_v4/autoencoders", "blocks.3.hook_mlp_out", ""),
    ("openai/gpt2-small/resid_post_mlp_v5_32k/autoencoders", "blocks.8.hook_resid_post", ""),
    ("goodfire/Llama-3.1-8B-Instruct-SAE-l19", "blocks.19.hook_resid_post", ""),
    ("deepseek/DeepSeek-R1-Distill-Llama-8B-SAE-l19", "blocks.19.hook_resid_post", ""),
    ("qwen_scope/SAE-Res-Qwen3-1.7B-Base-W32K-L0_5", "blocks.4.hook_resid_post", ""),
    ("hook_z/attn-saes-gpt2-small-all-layers", "blocks.5.attn.hook_z", ""),
    ("temporal_saes/temporalSAEs/gemma-2-2B/layer_12/temporal", "blocks.12.hook_resid_post", ""),
]
MODELS = {
    "gemma_scope/gemma-scope-9b-pt-att/layer_3/width_16k/average_l0_5": "google/gemma-2-9b",
    "gemma_scope_2/gemma-scope-2-1b-pt/resid_post/layer_13_width_16k_l0_big": "google/gemma-3-1b-pt",
    "gemma_scope_2/gemma-scope-2-1b-pt/clt/width_16k_l0_big_affine": "google/gemma-3-1b-pt",
    "llama_scope/Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L15R-8x": "meta-llama/Llama-3.1-8B",
    "openai/gpt2-small/resid_post_mlp_v5_32k/autoencoders": "gpt2",
    "goodfire/Llama-3.1-8B-Instruct-SAE-l19": "meta-llama/Llama-3.1-8B-Instruct",
    "qwen_scope/SAE-Res-Qwen3-1.7B-Base-W32K-L0_5": "Qwen/Qwen3-1.7B-Base",
    "temporal_saes/temporalSAEs/llama-3.1-8B/layer_15/temporal": "meta-llama/Llama-3.1-8B",
    "circuit_tracer/relu": "gpt2",
}


@pytest.mark.parametrize(("case", "site", "target"), SITES)
def test_where_it_belongs_is_read_from_names_and_configs(case: str, site: str, target: str) -> None:
    (coder,) = read(*case.split("/", 1)).values()
    assert coder.wiring.reads == (Port(site, 6),)
    assert coder.wiring.writes == (Port(target or site, 6),)


@pytest.mark.parametrize("case", MODELS)
def test_the_model_is_read_from_names_and_configs(case: str) -> None:
    for coder in read(*case.split("/", 1)).values():
        assert coder.origin is not None and coder.origin.model == MODELS[case]


def test_what_the_caller_says_of_the_place_wins() -> None:
    place = Place("other/model", "layers.1.resid_pre")
    (coder,) = read("gemma_scope", "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82", place).values()
    assert (coder.site, coder.origin) == ("layers.1.resid_pre", Origin("other/model"))
    two = read("circuit_tracer", "relu", Place("", "layers.{layer}.mlp_in", "layers.{layer}.mlp_out"))
    assert two["layers.1"].wiring.writes == (Port("layers.1.mlp_out", 6),)


def test_a_cross_layer_transcoder_is_a_coder_for_each_layer_it_reads() -> None:
    coders = read("circuit_tracer", "cross_layer_relu")
    assert list(coders) == ["layers.0", "layers.1", "layers.2"]
    assert [port.site for port in coders["layers.1"].wiring.reads] == ["blocks.1.hook_resid_mid"]
    assert [port.site for port in coders["layers.1"].wiring.writes] == [
        "blocks.1.hook_mlp_out",
        "blocks.2.hook_mlp_out",
    ]
    assert torch.equal(coders["layers.1"].b_dec[6:], torch.zeros(6))


@pytest.mark.parametrize(
    ("format", "file", "name"),
    [
        ("circuit_tracer", "relu/layer_1.safetensors", "layers.1"),
        ("circuit_tracer", "cross_layer_jumprelu/W_enc_1.safetensors", "layers.1"),
        ("circuit_tracer", "cross_layer_jumprelu/W_dec_2.safetensors", "layers.2"),
        ("gemma_scope_2", "gemma-scope-2-1b-pt/clt/width_16k_l0_big_affine/params_layer_1.safetensors", "layers.1"),
        ("openai", "gpt2-small/resid_post_mlp_v5_32k/autoencoders/8.pt", "8"),
        ("qwen_scope", "SAE-Res-Qwen3-1.7B-Base-W32K-L0_5/layer4.sae.pt", "layers.4"),
    ],
)
def test_one_file_of_a_set_gives_its_own_coder(format: str, file: str, name: str) -> None:
    path = published_cases.GOLDEN / format / "theirs" / file
    one, whole = read_dictionaries(path), read_dictionaries(path.parent)
    assert list(one) == [name]
    assert all(torch.equal(tensor, whole[name].state_dict()[key]) for key, tensor in one[name].state_dict().items())


def test_crosscoders_of_two_models_have_ports_of_their_own() -> None:
    (coder,) = read("crosscoder", "crosscoder-gemma-2-2b-model-diff/blocks.14.hook_resid_pre").values()
    assert [port.site for port in coder.wiring.reads] == ["blocks.14.hook_resid_pre@0", "blocks.14.hook_resid_pre@1"]
    assert coder.wiring.kind == "crosscoder"


def test_the_table_of_what_is_verified_has_every_format() -> None:
    table = list(verified())
    assert {format for format, *_ in table} == set(formats()) - {"native"}
    assert ("openai", "topk", True, False) in table and ("openmoss", "jumprelu", True, False) in table
    assert len(table) == len(set(table))


def test_golden_files_of_published_layouts_stay_small() -> None:
    files = [file for format in published_cases.FORMATS for file in (golden_cases.GOLDEN / format).rglob("*.*")]
    assert sum(file.stat().st_size for file in files if file.is_file()) < 400_000
