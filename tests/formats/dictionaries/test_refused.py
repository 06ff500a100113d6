"""What a coder here could not do exactly as where it comes from is refused, in one line that says what it is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from unweave.errors import UserError
from unweave.formats.dictionaries import Place, formats, read_dictionaries

from . import published_cases

Change = Callable[[Any], None]


def _in_file(file: Path, change: Change) -> None:
    """Change what a file holds, in place."""
    if file.suffix in (".json", ".yaml"):
        content = yaml.safe_load(file.read_text())
        change(content)
        file.write_text(json.dumps(content))
    elif file.suffix == ".safetensors":
        content = load_file(file)
        change(content)
        save_file(content, file)
    else:
        content = torch.load(file, weights_only=True)
        change(content)
        torch.save(content, file)


def _set(**values: Any) -> Change:
    return lambda content: content.update(values)


def _drop(*names: str) -> Change:
    return lambda content: [content.pop(name) for name in names] and None


def _chosen(name: str) -> Change:
    def change(content: Any) -> None:
        content["model"]["init_args"]["nonlinearity"]["class_path"] = f"crosslayer_transcoder.model.topk.{name}"

    return change


def _standardised(name: str) -> Change:
    def change(content: Any) -> None:
        path = f"crosslayer_transcoder.model.standardize.{name}"
        content["model"]["init_args"]["input_standardizer"] = {"class_path": path, "init_args": {}}

    return change


LLAMA = "Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L15R-8x"
R1 = "Llama-Scope-R1-Distill/0-Slimpajama-800M-OpenR1-Math-220k/L5R"
R1_NORM = "dataset_average_activation_norm.blocks.5.hook_resid_post"
MOSS_NORM = "dataset_average_activation_norm.blocks.2.hook_resid_post"
TOPK = "gpt2-small/resid_post_mlp_v5_32k/autoencoders"
GEMMA = "crosscoder-gemma-2-2b-model-diff/blocks.14.hook_resid_pre"
TEMPORAL = "temporalSAEs/gemma-2-2B/layer_12/temporal"
WEIGHTS = "sae_weights.safetensors"
REFUSED: list[tuple[str, str, str, Change, str]] = [
    ("openmoss", "relu", "config.json", _set(use_glu_encoder=True), "a GLU encoder, which has no equal here"),
    ("openmoss", "relu", "config.json", _set(sae_type="lorsa"), "is a 'lorsa' of Llamascopium"),
    ("openmoss", "relu", "config.json", _set(sae_type="clt"), "is a 'clt' of Llamascopium"),
    (
        "openmoss",
        "relu",
        "config.json",
        _set(norm_activation="batch-wise"),
        "'batch-wise', expected one of dataset-wise",
    ),
    ("openmoss", "relu", "config.json", _set(act_fn="layertopk"), "'layertopk', expected one of relu"),
    ("openmoss", "relu", "config.json", _set(d_model="6"), "'d_model' in .* is '6', expected a whole number"),
    (
        "openmoss",
        "relu",
        WEIGHTS,
        _drop(MOSS_NORM),
        "lacks 'dataset_average_activation_norm.*by which rows were scaled",
    ),
    ("openmoss", "relu", WEIGHTS, _set(**{MOSS_NORM: torch.tensor(0.0)}), "is 0.0, expected more than 0"),
    (
        "openmoss",
        "jumprelu_transcoder",
        "config.json",
        _set(norm_activation="token-wise"),
        "'token-wise' for a transcoder",
    ),
    ("openmoss", "crosscoder", "config.json", _set(act_fn="topk"), "sites gate a latent each on its own"),
    ("openmoss", "crosscoder", "config.json", _set(hook_points=["a", "b"]), "tensors of 3 sites, its config names"),
    ("openmoss", "topk", "config.json", _set(top_k=18), "cannot be read as topk: .*k=18"),
    ("llama_scope", LLAMA, "hyperparams.json", _set(jump_relu_threshold=0.0), "is 0.0, expected more than 0"),
    ("llama_scope", LLAMA, "hyperparams.json", _set(use_glu_encoder=True), "a GLU encoder"),
    ("llama_scope", LLAMA, "hyperparams.json", _set(act_fn="relu"), "'relu', expected one of jumprelu"),
    (
        "llama_scope",
        LLAMA,
        "hyperparams.json",
        _set(dataset_average_activation_norm={"in": -1}),
        "expected more than 0",
    ),
    ("llama_scope", R1, WEIGHTS, _drop(R1_NORM), "by which rows were scaled; it cannot be read exactly"),
    ("llama_scope", R1, "config.json", _set(apply_decoder_bias_to_pre_encoder=True), "subtracts the decoder's bias"),
    ("openai", TOPK, "8.pt", _set(activation="Identity"), "'Identity', expected one of ReLU, TopK"),
    ("openai", TOPK, "8.pt", _set(activation_state_dict={"k": 5, "postact_fn": "Identity"}), "expected one of ReLU"),
    ("openai", TOPK, "8.pt", _set(activation_state_dict={}), "'k' in .* is missing, expected a whole number"),
    ("openai", TOPK, "8.pt", _set(note="text"), "'note' in .* is str, expected a tensor"),
    ("circuit_tracer", "relu", "config.yaml", _drop("feature_input_hook"), "does not say its site; give both"),
    ("circuit_tracer", "jumprelu_skip", "layer_0.safetensors", _set(threshold=-torch.ones(17)), "thresholds below 0"),
    ("circuit_tracer", "cross_layer_relu", "W_dec_1.safetensors", _set(W_dec_1=torch.ones(17, 0, 6)), "has shape"),
    (
        "crosslayer_transcoder",
        "cross_layer_jumprelu",
        "config.yaml",
        _chosen("LayerTopK"),
        "'LayerTopK', which chooses",
    ),
    (
        "crosslayer_transcoder",
        "cross_layer_jumprelu",
        "config.yaml",
        _chosen("BatchTopK"),
        "'BatchTopK', which chooses",
    ),
    (
        "crosslayer_transcoder",
        "cross_layer_jumprelu",
        "config.yaml",
        _standardised("SamplewiseInputStandardizer"),
        "'SamplewiseInputStandardizer', which cannot be folded",
    ),
    (
        "crosslayer_transcoder",
        "cross_layer_jumprelu",
        "config.yaml",
        _standardised("DimensionwiseInputStandardizer"),
        "'DimensionwiseInputStandardizer', which cannot be folded",
    ),
    ("crosscoder", "minder_batchtopk", "model.safetensors", _set(code_normalization_id=torch.tensor(5)), "DECOUPLED"),
    (
        "crosscoder",
        "minder_batchtopk",
        "model.safetensors",
        _set(code_normalization_id=torch.tensor(9)),
        "normalisation 9",
    ),
    ("crosscoder", "minder_batchtopk", "config.json", _set(encoder_layers=[0]), "sets 'encoder_layers'"),
    ("crosscoder", "minder_batchtopk", "model.safetensors", _drop("activation_global_scale"), "no scale with it"),
    ("crosscoder", GEMMA, "cc_weights.pt", _set(b_dec=torch.ones(3, 6)), "expected \\[2, 6\\] by the other tensors"),
    (
        "hook_z",
        "attn-saes-gpt2-small-all-layers",
        "gpt2-small_L5_Hcat_z_lr1_cfg.json",
        _set(act_size=7),
        "its config says",
    ),
    (
        "temporal_saes",
        TEMPORAL,
        "conf.yaml",
        lambda c: c["sae"].update(exp_factor=3),
        "'exp_factor' in .* do not fit D",
    ),
    ("temporal_saes", TEMPORAL, "conf.yaml", lambda c: c["sae"].update(sae_type="topk"), "expected one of temporal"),
    ("temporal_saes", TEMPORAL, "conf.yaml", lambda c: c["sae"].update(sae_diff_type="batchtopk"), "of relu, topk"),
    ("temporal_saes", TEMPORAL, "latest_ckpt.safetensors", _set(E=torch.ones(6, 12)), "tied, and has W_enc"),
]


def test_a_bias_that_is_saved_as_a_row_is_read_as_one(tmp_path: Path) -> None:
    copy = _copy("temporal_saes", TEMPORAL, tmp_path)
    (before,) = read_dictionaries(copy).values()
    _in_file(copy / "latest_ckpt.safetensors", lambda tensors: tensors.update(b=tensors["b"][None]))
    (after,) = read_dictionaries(copy).values()
    assert torch.equal(before.b_dec, after.b_dec)


def _copy(format: str, case: str, tmp_path: Path) -> Path:
    copy = tmp_path / case
    shutil.copytree(published_cases.folder(format, case), copy)
    return copy


@pytest.mark.parametrize(("format", "case", "file", "change", "message"), REFUSED)
def test_what_cannot_be_the_same_here_is_refused(
    tmp_path: Path, format: str, case: str, file: str, change: Change, message: str
) -> None:
    copy = _copy(format, case, tmp_path)
    _in_file(copy / file, change)
    with pytest.raises(UserError, match=message) as error:
        formats()[format].read(copy, Place())
    assert "\n" not in str(error.value)


def test_a_scaling_factor_that_was_not_folded_is_refused(tmp_path: Path) -> None:
    import numpy as np

    copy = _copy("gemma_scope", "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82", tmp_path)
    arrays: dict[str, Any] = dict(np.load(copy / "params.npz"))
    np.savez(copy / "params.npz", **arrays, scaling_factor=np.ones(17))
    assert read_dictionaries(copy)
    np.savez(copy / "params.npz", **arrays, scaling_factor=np.full(17, 2.0))
    with pytest.raises(UserError, match="scaling_factor that is not 1"):
        read_dictionaries(copy)


def test_a_transcoder_between_widths_has_to_be_told_its_target(tmp_path: Path) -> None:
    copy = _copy("gemma_scope_2", "gemma-scope-2-1b-pt/resid_post/layer_13_width_16k_l0_big", tmp_path)
    narrower = _set(w_dec=torch.ones(17, 5), b_dec=torch.ones(5))
    _in_file(copy / "params.safetensors", narrower)
    with pytest.raises(UserError, match="reads width 6 and writes width 5, so it is a transcoder"):
        read_dictionaries(copy)
    (coder,) = read_dictionaries(copy, Place("", "layers.1.mlp_in", "layers.1.mlp_out")).values()
    assert coder.wiring.kind == "transcoder"


def test_names_that_say_what_files_do_not_have_to_be_kept(tmp_path: Path) -> None:
    shutil.copy(published_cases.folder("qwen_scope", "SAE-Res-Qwen3-1.7B-Base-W32K-L0_5") / "layer4.sae.pt", tmp_path)
    with pytest.raises(UserError, match="does not say how many latents a row has; keep it in its folder"):
        read_dictionaries(tmp_path)
    clt = published_cases.folder("gemma_scope_2", "gemma-scope-2-1b-pt/clt/width_16k_l0_big_affine")
    shutil.copy(clt / "params_layer_1.safetensors", tmp_path / "some.safetensors")
    with pytest.raises(UserError, match="should say which layer of 3 it is, as layer_0"):
        read_dictionaries(tmp_path / "some.safetensors")


def test_a_set_without_its_config_is_read_when_its_sites_are_said(tmp_path: Path) -> None:
    copy = _copy("circuit_tracer", "relu", tmp_path)
    (copy / "config.yaml").unlink()
    (copy / "layer_0.safetensors").unlink()
    place = Place("some/model", "layers.{layer}.mlp_in", "layers.{layer}.mlp_out")
    assert list(read_dictionaries(copy, place)) == ["layers.1"]
