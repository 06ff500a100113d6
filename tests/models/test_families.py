"""Named sites of many families against their modules, looked up by hand, and against the model's own arithmetic."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.families import FAMILIES, proof_of, tiny, verified_sites
from tests.models.family_oracle import ENDS, EXPECTED, LLAMA_ENDS
from unweave.models.inputs import last_of, random_inputs
from unweave.models.language_model import LanguageModel
from unweave.models.layout import POINTS
from unweave.models.proof import prove

TIGHT: dict[str, Any] = {"rtol": 1e-5, "atol": 2e-5}

every_family = pytest.mark.parametrize("family", FAMILIES)


def _inputs(lm: LanguageModel) -> Tensor:
    inputs = random_inputs(lm.model, 9, torch.Generator().manual_seed(7))
    return torch.cat([inputs, inputs.flip(-1)])


@every_family
def test_each_point_is_at_the_module_where_its_tensor_is(family: str) -> None:
    lm = tiny(family)
    blocks, points = EXPECTED[family]
    assert lm.sites.n_layers == 2
    for layer in range(2):
        expected = dict(points)
        if (family, layer) == ("qwen3_moe", 0):  # the one block of the kind that has no experts
            expected = EXPECTED["llama"][1]
        found = {p: (s.module, s.side) for p, s in lm.sites.layout.blocks[layer].items()}
        assert found == {point: (f"{blocks}.{layer}{path}", side) for point, (path, side) in expected.items()}
        assert list(found) == [point for point in POINTS if point in found]
    embedding, norm = ENDS.get(family, LLAMA_ENDS)
    assert lm.sites.resolve("embed").module == embedding
    assert [site.module for site in lm.sites.layout.last.values()] == ([norm, norm] if norm else [])


@every_family
def test_the_stream_is_what_hugging_face_says_and_all_that_is_added_is_found(family: str) -> None:
    lm = tiny(family)
    inputs = _inputs(lm)
    with torch.no_grad():
        options = {"use_cache": False} if lm.model.can_generate() else {}
        states = lm.model(inputs, output_hidden_states=True, **options).hidden_states
    x = lm.capture(inputs, lm.sites.names())
    for layer in range(2):
        pre, attn, mlp, post = (
            x[f"layers.{layer}.{point}"] for point in ("resid_pre", "attn_out", "mlp_out", "resid_post")
        )
        torch.testing.assert_close(pre, states[layer], rtol=0, atol=0)
        if layer == 0:
            torch.testing.assert_close(post, states[1], rtol=0, atol=0)
        if family in ("bert", "roberta"):
            block = lm.model.get_submodule(f"{family}.encoder.layer.{layer}")
            mid = x[f"layers.{layer}.resid_mid"]
            torch.testing.assert_close(mid, block.attention.output.LayerNorm(pre + attn), **TIGHT)
            torch.testing.assert_close(post, block.output.LayerNorm(mid + mlp), **TIGHT)
            continue
        torch.testing.assert_close(post, pre + attn + mlp, **TIGHT)
        if f"layers.{layer}.resid_mid" in x:
            torch.testing.assert_close(x[f"layers.{layer}.resid_mid"], pre + attn, **TIGHT)


@every_family
def test_edits_that_change_nothing_are_exact_at_each_site_alone_and_zeros_change_the_output(family: str) -> None:
    lm = tiny(family)
    inputs = _inputs(lm)
    with torch.no_grad():
        clean = last_of(lm.run(inputs).output)
        for name in lm.sites.names():
            if name.endswith(".router"):
                continue
            with lm.patch({name: torch.clone}):
                assert torch.equal(last_of(lm.run(inputs).output), clean), name
            with lm.patch({name: torch.zeros_like}):
                effect = (last_of(lm.run(inputs).output) - clean).norm() / clean.norm()
            if ".experts." not in name:
                assert effect > 0.02, name
            else:  # to which any number of tokens may be sent
                assert bool(effect > 0) == bool(lm.capture(inputs, name)[name].any()), name
        assert torch.equal(last_of(lm.run(inputs).output), clean)


@every_family
def test_what_is_added_at_a_site_is_added_to_the_stream_behind_it(family: str) -> None:
    lm = tiny(family)
    inputs = _inputs(lm)
    behind = {"resid_pre": "resid_pre", "attn_out": "resid_mid", "resid_mid": "resid_mid", "mlp_out": "resid_post"}
    for point, seen in behind.items():
        sites = [f"layers.1.{point}", f"layers.1.{seen}"]
        if sites[1] not in lm.sites.names() or ("bert" in family and point != seen):
            continue
        clean = lm.capture(inputs, sites)[sites[1]]
        delta = torch.randn(clean.shape[-1])
        with lm.patch({sites[0]: lambda x, delta=delta: x + delta}):
            edited = lm.capture(inputs, sites)[sites[1]]
        torch.testing.assert_close(edited, clean + delta, rtol=1e-4, atol=1e-4)


@every_family
def test_normalised_rows_times_the_norms_weight_are_what_the_norm_gives(family: str) -> None:
    """Worked out here from the norm's own class: with its mean away or not, times w or 1 + w."""
    lm = tiny(family)
    inputs = _inputs(lm)
    for name in [name for name in lm.sites.names() if name.endswith(".normalized")]:
        site = lm.sites.resolve(name)
        module: Any = lm.model.get_submodule(site.module)
        out = f"{site.module}:out"
        if not site.is_flat:
            x = lm.capture(inputs, [name, out])
            weight = 1 + module.weight if "gemma" in family else module.weight
            bias = module.bias if hasattr(module, "bias") else 0
            torch.testing.assert_close(x[name] * weight + bias, x[out], **TIGHT)
        held = lm.capture(inputs, name)[name]
        torch.testing.assert_close(held.square().mean(-1), torch.ones(held.shape[:-1]), rtol=1e-2, atol=1e-2)
        if type(module).__name__ == "LayerNorm":
            assert held.mean(-1).abs().max() < 1e-5


@every_family
def test_the_proof_of_a_whole_model_finds_nothing_wrong(family: str) -> None:
    proof = proof_of(family)
    assert proof.problems == ()
    assert proof.is_exact
    assert max(error for error in proof.block_errors if error is not None) < 1e-6
    assert proof.projection_error is not None and proof.projection_error < 1e-6
    assert (proof.stream_error is None) == (family in ("bert", "roberta"))
    assert proof.stream_error is None or proof.stream_error < 1e-6
    assert min(point.effect for point in proof.points if point.effect is not None) > 0.02
    assert {point.name.split(".")[-1] for point in proof.points if point.effect is None} <= {"router"}


@every_family
def test_the_same_sites_are_found_in_half_precision(family: str) -> None:
    half = LanguageModel(copy.deepcopy(tiny(family).model).bfloat16(), None, family)
    assert half.sites.layout.blocks == tiny(family).sites.layout.blocks
    assert half.sites.layout.last == tiny(family).sites.layout.last


@pytest.mark.parametrize("family", ["gpt_neox", "granite", "opt", "bert"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_is_proved_too(family: str, dtype: torch.dtype) -> None:
    half = LanguageModel(copy.deepcopy(tiny(family).model).to(dtype), None, family)
    assert prove(half).problems == ()


def test_an_untrained_model_whose_blocks_add_next_to_nothing_is_found_out_all_the_same() -> None:
    """In bfloat16 most of what its blocks add is lost in the rounding of the stream."""
    settings = {**vars(tiny("granite").model.config), "initializer_range": 0.02}
    config = type(tiny("granite").model.config)(**settings)
    untrained = LanguageModel(type(tiny("granite").model)(config).bfloat16(), None, "untrained")
    assert untrained.sites.layout.blocks == tiny("granite").sites.layout.blocks


def test_a_norm_is_not_judged_by_its_name() -> None:
    """Both are called post_attention_layernorm: in front of the MLP in Llama, behind attention in Gemma 2."""
    assert tiny("llama").sites.resolve("layers.0.ln2.normalized").module.endswith("post_attention_layernorm")
    assert tiny("llama").sites.resolve("layers.0.attn_out").module.endswith("self_attn")
    assert tiny("gemma2").sites.resolve("layers.0.attn_out").module.endswith("post_attention_layernorm")
    assert tiny("gemma2").sites.resolve("layers.0.ln2.normalized").module.endswith("pre_feedforward_layernorm")


def test_a_multiplier_of_what_is_added_is_part_of_it() -> None:
    lm = tiny("granite")
    inputs = _inputs(lm)
    x = lm.capture(inputs, ["layers.1.mlp_out", "model.layers.1.mlp", "embed", "model.embed_tokens"])
    torch.testing.assert_close(x["layers.1.mlp_out"], 0.22 * x["model.layers.1.mlp"])
    torch.testing.assert_close(x["embed"], 12.0 * x["model.embed_tokens"])


@pytest.mark.parametrize("family", ["falcon", "falcon (new)"])
def test_a_tensor_that_the_model_writes_into_later_is_kept_as_it_was(family: str) -> None:
    """Falcon adds the attention's output to the MLP's in place."""
    lm = tiny(family)
    inputs = _inputs(lm)
    names = ["layers.0.mlp_out", "transformer.h.0.mlp", "layers.1.resid_post"]
    x = lm.capture(inputs, names)
    alone = lm.capture(inputs, names[0])[names[0]]
    assert torch.equal(x[names[0]], alone) and torch.equal(x[names[1]], alone)
    mine = torch.randn_like(alone)
    before = mine.clone()
    with lm.patch({names[0]: lambda _: mine}):
        lm.logits(inputs)
    assert torch.equal(mine, before)


def test_halves_of_a_fused_projection_are_gate_and_up() -> None:
    lm = tiny("phi3")
    inputs = _inputs(lm)
    x = lm.capture(inputs, ["layers.0.mlp.pre", "layers.0.mlp.pre_linear", "layers.0.mlp.post"])
    gate, up, post = x.values()
    torch.testing.assert_close(torch.nn.functional.silu(gate) * up, post, **TIGHT)


@every_family
def test_the_table_for_the_documentation_has_every_point_and_says_which_are_there(family: str) -> None:
    sites = verified_sites(family)
    assert [point for point, is_there in sites.items() if is_there and point in POINTS] == [
        point for point in POINTS if any(point in points for points in tiny(family).sites.layout.blocks)
    ]
    assert sites["embed"]
