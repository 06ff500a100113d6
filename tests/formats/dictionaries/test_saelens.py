"""Configs and metadata of SAELens: what is read from them, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from unweave.coders import Origin, Port, Wiring, architecture
from unweave.errors import UserError
from unweave.formats.dictionaries import Place, read_dictionaries, saelens, write_dictionary
from unweave.models.transformer_lens import POINTS, canonical

from .golden_cases import GOLDEN, read
from .ours import coder


@pytest.fixture
def copy(tmp_path: Path) -> Any:
    """A copy of a case whose config is changed."""

    def changed(case: str, **changes: Any) -> Path:
        folder = shutil.copytree(GOLDEN / "saelens" / "theirs" / case, tmp_path / case)
        config = json.loads((folder / "cfg.json").read_text())
        metadata = config.get("metadata", {}) | changes.pop("metadata", {})
        config |= changes | ({"metadata": metadata} if metadata else {})
        (folder / "cfg.json").write_text(json.dumps(config))
        return folder

    return changed


def test_the_model_and_the_site_are_those_of_the_metadata() -> None:
    found = read("saelens", "theirs", "standard")
    assert found.origin == Origin("gpt2-small")
    assert found.site == "blocks.3.hook_resid_pre"


def test_a_transcoder_reads_and_writes_what_its_metadata_say() -> None:
    wiring = read("saelens", "theirs", "jumprelu_skip_transcoder").wiring
    assert wiring.kind == "skip_transcoder"
    assert [port.site for port in wiring.reads + wiring.writes] == ["blocks.3.hook_resid_pre", "blocks.3.hook_mlp_out"]


def test_old_configs_have_the_model_and_the_site_at_the_top() -> None:
    found = read("saelens", "theirs", "old_topk")
    assert found.origin == Origin("gpt2-small")
    assert found.site == "blocks.5.hook_mlp_out"
    assert found.config.k == 4  # pyright: ignore[reportAttributeAccessIssue]


def test_a_given_place_wins_over_the_metadata() -> None:
    path = GOLDEN / "saelens" / "theirs" / "transcoder"
    (found,) = saelens.read(path, Place("other/model", "layers.1.mlp_in", "layers.1.mlp_out")).values()
    assert found.origin == Origin("other/model")
    assert found.wiring == Wiring.transcoder(Port("layers.1.mlp_in", 6), Port("layers.1.mlp_out", 5))


def test_a_model_with_a_centred_stream_is_an_option_of_the_site(copy: Any) -> None:
    centred = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
    assert read("saelens", "theirs", "centred").site == "blocks.3.hook_resid_pre:centred"
    heads = copy("standard", metadata=centred | {"hook_name": "blocks.3.attn.hook_z"})
    (found,) = saelens.read(heads, Place()).values()
    assert found.site == "blocks.3.attn.hook_z", "head outputs are the same in such a model"


def test_heads_without_value_biases_are_an_option_of_the_site(copy: Any, tmp_path: Path) -> None:
    heads = copy("hook_z", metadata={"model_from_pretrained_kwargs": {"fold_value_biases": True}})
    (found,) = saelens.read(heads, Place()).values()
    assert found.site == "blocks.2.attn.hook_z:unbiased"
    write_dictionary(found, tmp_path / "again", "saelens")
    (again,) = saelens.read(tmp_path / "again", Place()).values()
    assert again.site == found.site


def test_sites_of_hugging_face_models_are_outputs_of_modules(copy: Any) -> None:
    about = {"model_class_name": "AutoModelForCausalLM", "hook_name": "model.layers.3"}
    (found,) = saelens.read(copy("standard", metadata=about), Place()).values()
    assert found.site == "model.layers.3:out"


def test_the_scale_that_is_missing_can_be_added_to_the_config(copy: Any) -> None:
    path = copy("standard", normalize_activations="expected_average_only_in")
    with pytest.raises(UserError, match=r"scaled to a mean norm of sqrt\(d_in\), and no file says by how much"):
        saelens.read(path, Place())
    config = json.loads((path / "cfg.json").read_text())
    (path / "cfg.json").write_text(json.dumps(config | {"norm_scaling_factor": 0.5}))
    (found,) = saelens.read(path, Place()).values()
    plain = read("saelens", "theirs", "standard")
    assert torch.equal(found.W_enc, 0.5 * plain.W_enc)
    assert torch.equal(found.W_dec, 2 * plain.W_dec)
    assert torch.equal(found.b_dec, 2 * plain.b_dec)
    assert torch.equal(found.b_enc, plain.b_enc)


def test_a_given_config_wins_over_the_one_in_the_file(copy: Any) -> None:
    path = copy("standard", normalize_activations="expected_average_only_in")
    (found,) = read_dictionaries(path, config={"norm_scaling_factor": 0.5}).values()
    assert torch.equal(found.W_enc, 0.5 * read("saelens", "theirs", "standard").W_enc)
    (normed,) = saelens.read(path, Place(), {"normalize_activations": "constant_norm_rescale"}).values()
    assert normed.wiring.row_norm == "sqrt_width"


def test_a_setting_that_no_config_can_be_given_is_an_error() -> None:
    path = GOLDEN / "saelens" / "theirs" / "standard"
    with pytest.raises(UserError, match="in the format saelens cannot be given norm_factor"):
        read_dictionaries(path, config={"norm_factor": 0.5, "norm_scaling_factor": 0.5})
    path = GOLDEN / "sparsify" / "theirs"
    with pytest.raises(UserError, match="in the format sparsify cannot be given norm_scaling_factor"):
        read_dictionaries(next(path.iterdir()), config={"norm_scaling_factor": 0.5})


def test_tied_weights_become_weights_that_are_not_tied(tmp_path: Path) -> None:
    found = read("saelens", "theirs", "temporal_scaled")
    write_dictionary(found, tmp_path, "saelens")
    theirs = load_file(GOLDEN / "saelens" / "theirs" / "temporal_scaled" / "sae_weights.safetensors")
    again = load_file(tmp_path / "sae_weights.safetensors")
    torch.testing.assert_close(again.pop("W_enc"), theirs["W_dec"].T)
    assert again.keys() == theirs.keys()
    for name, tensor in again.items():
        torch.testing.assert_close(tensor, theirs[name])
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert config["activation_normalization_factor"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("case", "changes", "says"),
    [
        ("standard", {"architecture": "temporal", "tied_weights": True}, "its weights are tied, and has W_enc"),
        ("temporal", {"tied_weights": False}, "its weights are not tied, and lacks W_enc"),
        ("temporal", {"bottleneck_factor": 5}, "'bottleneck_factor' in .* is 5, expected a divisor of 12"),
        ("temporal", {"bottleneck_factor": 4}, r"shape \[4, 12\], expected \[3, 12\]|must divide"),
        ("temporal", {"n_attn_layers": 2}, "lacks layers.1"),
        ("temporal", {"kval_topk": 0}, "'kval_topk' in .* is 0, expected at least 1"),
        ("temporal", {"kval_topk": 13}, "0 <= k <= n_latents, got k=13"),
        ("temporal", {"sae_diff_type": "nullify"}, "'sae_diff_type' in .* expected one of relu, topk"),
        ("temporal", {"normalize_activations": "expected_average_only_in"}, "expected one of none, layer_norm"),
        ("temporal_scaled", {"activation_normalization_factor": 0}, "scales rows by 0.0, expected a number above 0"),
        ("standard", {"normalize_activations": "constant_scalar_rescale"}, "expected one of none, "),
        ("standard", {"architecture": "standrad"}, "unknown architecture 'standrad'; did you mean 'standard'"),
        ("standard", {"architecture": 3}, "'architecture' in .* is 3, expected a text"),
        ("standard", {"normalize_activations": "batch_norm"}, "'normalize_activations' in .* expected one of none, "),
        ("standard", {"d_in": 7}, "'d_in' in .* is 7, but the weights beside it have 6"),
        ("standard", {"d_sae": 14}, "'d_sae' in .* is 14, but the weights beside it have 13"),
        ("standard", {"architecture": "jumprelu"}, "lacks threshold; it cannot be read as jumprelu"),
        ("gated", {"architecture": "standard"}, "cannot be read as relu"),
        ("topk", {"k": 99}, r"cannot be read as topk: coder\.k needs 0 < k <= n_latents"),
        ("topk", {"k": 2.5}, "'k' in .* is 2.5, expected a whole number"),
        ("transcoder", {"normalize_activations": "layer_norm"}, "which SAELens does not undo"),
        ("transcoder", {"apply_b_dec_to_input": True}, "which SAELens does not undo"),
        ("transcoder", {"metadata": {"hook_name_out": None}}, "does not say its target"),
        ("training_matryoshka", {"matryoshka_widths": "all"}, "expected a list of whole numbers"),
        ("training_matryoshka", {"matryoshka_widths": [9, 4, 13]}, "must ascend"),
        ("old_topk", {"activation_fn_kwargs": {}}, r"no activation_fn_kwargs\.k"),
        ("old_standard", {"activation_fn_str": "tanh-relu"}, "activation 'tanh-relu', expected relu or topk"),
        ("standard", {"metadata": {"hook_head_index": 2}}, "reads head 2 of 'blocks.3.hook_resid_pre' alone"),
        (
            "hook_z",
            {"metadata": {"model_from_pretrained_kwargs": {"refactor_factored_attn_matrices": True}}},
            "of a model whose heads were refactored",
        ),
        ("standard", {"normalize_activations": "covariance_whitening"}, r"no file .*activation_whitening\.safetensors"),
        (
            "standard",
            {"normalize_activations": "expected_average_only_in", "norm_scaling_factor": -1},
            "'norm_scaling_factor' in .* is -1.0, expected a number above 0",
        ),
    ],
)
def test_what_cannot_be_read_as_it_is_there_is_refused(copy: Any, case: str, changes: dict, says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        saelens.read(copy(case, **changes), Place())
    assert "\n" not in str(error.value)


def test_a_head_can_be_read_where_the_site_is_given(copy: Any) -> None:
    path = copy("standard", metadata={"hook_head_index": 2})
    (found,) = saelens.read(path, Place(site="one.head")).values()
    assert found.site == "one.head"


def test_activations_that_were_scaled_after_fine_tuning_are_refused(copy: Any) -> None:
    path = copy("old_standard")
    tensors = load_file(path / "sae_weights.safetensors")
    tensors["scaling_factor"][3] = 1.5
    save_file(tensors, path / "sae_weights.safetensors")
    with pytest.raises(UserError, match="scales activations after fine-tuning"):
        saelens.read(path, Place())


def test_the_files_of_a_folder_stand_for_it() -> None:
    folder = GOLDEN / "saelens" / "theirs" / "topk"
    for file in ("cfg.json", "sae_weights.safetensors"):
        assert saelens.recognises(folder / file)
        assert list(saelens.read(folder / file, Place())) == ["topk"]


@pytest.mark.parametrize(
    ("case", "wiring", "says"),
    [
        ("prolu", Wiring.sae(6, "a"), "SAELens cannot hold an SAE of type prolu; it holds an SAE of types relu"),
        ("switch", Wiring.sae(6, "a"), "an SAE of type switch"),
        ("kron", Wiring.sae(6, "a"), "an SAE of type kron"),
        ("group_max", Wiring.sae(6, "a"), "an SAE of type group_max"),
        ("topk", Wiring.transcoder(Port("a", 6), Port("b", 6)), "a transcoder of type topk; it holds a transcoder of"),
        ("gated", Wiring.transcoder(Port("a", 6), Port("b", 6), skip=True), "a skip transcoder of type gated"),
        ("relu", Wiring.crosscoder(Port("a", 6), Port("b", 6)), "a crosscoder of 2 sites; it holds one site"),
        ("relu", Wiring.sae(6, "model.layers.3:in"), "no name for the site 'model.layers.3:in'"),
        ("relu", Wiring.sae(6), "does not say which site"),
    ],
)
def test_what_saelens_has_no_place_for_is_refused(case: str, wiring: Wiring, says: str, tmp_path: Path) -> None:
    cls = architecture(case)
    made = cls(cls.Config(n_latents=512), wiring)
    with pytest.raises(UserError, match=says) as error:
        write_dictionary(made, tmp_path / "out", "saelens")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("point", sorted({*POINTS.values()} - {"attn.scores", "attn.pattern"}))
def test_every_site_of_a_block_comes_back_as_it_was(point: str, tmp_path: Path) -> None:
    made = coder("saelens", "topk")
    made.wiring = Wiring.sae(6, f"layers.3.{point}")
    write_dictionary(made, tmp_path, "saelens")
    hook = json.loads((tmp_path / "cfg.json").read_text())["metadata"]["hook_name"]
    assert canonical(hook) == f"layers.3.{point}"


@pytest.mark.parametrize(
    ("site", "hook", "model_class"),
    [
        ("layers.3.resid_mid", "blocks.3.hook_resid_mid", "HookedTransformer"),
        ("layers.3.attn.z", "blocks.3.attn.hook_z", "HookedTransformer"),
        ("layers.11.mlp_in", "blocks.11.mlp.hook_in", "HookedTransformer"),
        ("embed", "hook_embed", "HookedTransformer"),
        ("blocks.3.ln2.hook_normalized", "blocks.3.ln2.hook_normalized", "HookedTransformer"),
        ("transformer.h.3.mlp", "transformer.h.3.mlp", "AutoModelForCausalLM"),
        ("transformer.h.3.mlp:out", "transformer.h.3.mlp", "AutoModelForCausalLM"),
    ],
)
def test_sites_are_written_by_the_names_that_saelens_hooks(
    site: str, hook: str, model_class: str, tmp_path: Path
) -> None:
    made = coder("saelens", "topk")
    made.wiring = Wiring.sae(6, site)
    write_dictionary(made, tmp_path, "saelens")
    metadata = json.loads((tmp_path / "cfg.json").read_text())["metadata"]
    assert (metadata["hook_name"], metadata["model_class_name"]) == (hook, model_class)
    assert metadata["model_name"] == "some/model"


def test_a_whitening_that_is_not_finite_is_refused(copy: Any) -> None:
    path = copy("whitened_standard")
    tensors = load_file(path / "activation_whitening.safetensors")
    tensors["inverse_matrix"][1, 2] = float("nan")
    save_file(tensors, path / "activation_whitening.safetensors")
    with pytest.raises(UserError, match="fold into W_dec is not finite"):
        saelens.read(path, Place())


@pytest.mark.parametrize(
    ("settings", "row_norm", "says"),
    [
        ({"d_key": 6}, "none", "keys of width 6 for 15 latents; it holds widths that divide"),
        ({"d_key": 3, "epsilon": 1e-5}, "layer_norm", "temporal coders that norm and scale rows"),
    ],
)
def test_a_temporal_coder_that_saelens_has_no_place_for_is_refused(
    settings: dict, row_norm: Any, says: str, tmp_path: Path
) -> None:
    cls, port = architecture("temporal"), (Port("layers.3.resid_pre", 6),)
    made = cls(cls.Config(n_latents=15, **{"n_heads": 3, "k": 4} | settings), Wiring(port, port, row_norm=row_norm))
    with pytest.raises(UserError, match=says):
        write_dictionary(made, tmp_path / "out", "saelens")
    assert not (tmp_path / "out").exists()
