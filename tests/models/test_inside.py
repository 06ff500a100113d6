"""Sites inside attention and mixtures of experts, by their names, in a ``LanguageModel``."""

import pytest
import torch
from torch import Tensor

from tests.models.families import tiny
from unweave.errors import UserError
from unweave.models.language_model import LanguageModel

MIXTURES = ["mixtral", "qwen3_moe", "gpt_oss"]


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(100, (2, 9), generator=torch.Generator().manual_seed(7))


def _captured(lm: LanguageModel, ids: Tensor, *points: str) -> list[Tensor]:
    """Points of the second block."""
    sites = [f"layers.1.{point}" for point in points]
    return list(lm.capture(ids, sites).values())


def test_values_mixed_by_the_pattern_are_the_outputs_of_heads(ids: Tensor) -> None:
    v, pattern, z = _captured(tiny("llama"), ids, "attn.v", "attn.pattern", "attn.z")
    heads = pattern @ v.unflatten(-1, (2, 6)).transpose(1, 2).repeat_interleave(2, dim=1)
    torch.testing.assert_close(z, heads.transpose(1, 2).flatten(2), rtol=1e-5, atol=1e-5)


def test_pairs_of_tokens_have_no_width_and_take_no_option(ids: Tensor) -> None:
    lm = tiny("gpt2")
    scores, pattern = _captured(lm, ids, "attn.scores", "attn.pattern")
    assert scores.shape == pattern.shape == (2, 4, 9, 9)
    for point in ("scores", "pattern"):
        with pytest.raises(UserError, match=rf"layers\.1\.attn\.{point} has numbers for pairs of tokens"):
            lm.width(f"layers.1.attn.{point}")
        with pytest.raises(UserError, match=r"takes no option, it has no row for each token"):
            lm.sites.resolve(f"layers.1.attn.{point}:centred")


def test_a_captured_batch_is_taken_in_parts_on_a_cpu() -> None:
    lm, ids = tiny("gpt2"), torch.randint(100, (70, 33))
    assert lm.capture(ids, "layers.0.attn.pattern")["layers.0.attn.pattern"].shape == (70, 4, 33, 33)


def test_capture_within_a_patch_sees_what_the_patch_has_changed(ids: Tensor) -> None:
    lm = tiny("llama")
    (pattern,) = _captured(lm, ids, "attn.pattern")
    with lm.patch({"layers.1.attn.pattern": lambda x: x.tril(-1)}):
        edited, z = _captured(lm, ids, "attn.pattern", "attn.z")
    assert torch.equal(edited, pattern.tril(-1))
    assert z[:, 0].abs().max() < 1e-5 < z[:, 1:].abs().min(-1).values.max()


def test_an_edit_in_attention_reaches_the_logits_and_none_before_it(ids: Tensor) -> None:
    """A key that no later token may look at has a say in its own logits alone."""
    lm = tiny("gpt2")

    def hide(scores: Tensor) -> Tensor:
        scores = scores.clone()
        scores[..., 5:, 4] = torch.finfo(scores.dtype).min
        return scores

    clean = lm.logits(ids)
    with lm.patch({f"layers.{layer}.attn.scores": hide for layer in range(2)}):
        hidden = lm.logits(ids)
        other = ids.clone()
        other[:, 4] = (ids[:, 4] + 1) % 100
        torch.testing.assert_close(lm.logits(other)[:, 5:], hidden[:, 5:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(hidden[:, :5], clean[:, :5], rtol=1e-5, atol=1e-5)
    assert (hidden[:, 5:] - clean[:, 5:]).abs().amax(-1).min() > 1e-4


@pytest.mark.parametrize("family", ["gpt_neo", "gptj", "falcon", "bloom"])
def test_a_model_that_works_out_attention_by_itself_has_no_such_sites(family: str) -> None:
    lm = tiny(family)
    assert not [name for name in lm.sites.names() if name.endswith(("attn.q", "pattern"))]
    for point in ("pattern", "q_before_rotary"):
        with pytest.raises(UserError, match=rf"model has no site 'layers\.0\.attn\.{point}'"):
            lm.sites.resolve(f"layers.0.attn.{point}")


@pytest.mark.parametrize("point", ["q", "k"])
def test_before_its_rotary_embedding_a_query_is_what_the_projection_gives(ids: Tensor, point: str) -> None:
    lm = tiny("qwen3")
    name = f"blocks.1.attn.hook_{point}"
    module = f"model.layers.1.self_attn.{point}_norm"
    before, after = _captured(lm, ids, f"attn.{point}_before_rotary", f"attn.{point}")
    assert torch.equal(before, lm.capture(ids, module)[module].flatten(2))
    assert torch.equal(before, lm.capture(ids, name)[name])
    torch.testing.assert_close(before[:, 0], after[:, 0])
    assert (before[:, 1:] - after[:, 1:]).abs().max() > 0.1
    with lm.patch({name: torch.clone}):
        assert torch.equal(lm.logits(ids), tiny("qwen3").logits(ids))
    with lm.patch({name: lambda x: 2 * x}):
        torch.testing.assert_close(_captured(lm, ids, f"attn.{point}")[0], 2 * after, rtol=1e-5, atol=1e-5)


def test_where_there_is_no_rotary_embedding_queries_are_the_same_before_and_after(ids: Tensor) -> None:
    lm = tiny("gpt2")
    assert lm.sites.resolve("blocks.1.attn.hook_q") == lm.sites.resolve("layers.1.attn.q")
    assert lm.sites.resolve("layers.0.attn.k_before_rotary").name == "layers.0.attn.k"


def test_queries_that_no_module_writes_before_their_rotary_embedding_are_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm = LanguageModel(tiny("llama").model, None, "a model whose attention does more than to turn its queries")
    assert lm.sites.resolve("blocks.1.attn.hook_q").module == "model.layers.1.self_attn.q_proj"
    turn = "transformers.models.llama.modeling_llama.apply_rotary_pos_emb"
    monkeypatch.setattr(turn, lambda q, k, cos, sin: (q.flip(-1), k))
    assert lm.sites.resolve("blocks.0.attn.hook_k").name == "layers.0.attn.k"
    with pytest.raises(
        UserError, match=r"no module .* makes layers\.0\.attn\.q of; name layers\.0\.attn\.q, or a module"
    ):
        lm.sites.resolve("blocks.0.attn.hook_q")


@pytest.mark.parametrize("family", MIXTURES)
def test_what_all_experts_add_is_what_the_mlp_adds(family: str, ids: Tensor) -> None:
    lm = tiny(family)
    *outs, mlp_out = _captured(lm, ids, *(f"mlp.experts.{i}.out" for i in range(4)), "mlp_out")
    torch.testing.assert_close(sum(outs), mlp_out, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", MIXTURES)
def test_the_points_of_experts_are_sites_with_rows(family: str, ids: Tensor) -> None:
    lm = tiny(family)
    names = [name for name in lm.sites.names() if name.startswith("layers.1.mlp.")]
    points = [f"experts.{i}.{point}" for i in range(4) for point in ("pre", "pre_linear", "post", "out")]
    assert names == [f"layers.1.mlp.{point}" for point in ("router", "routing", *points)]
    assert lm.width("layers.1.mlp.routing") == 4
    hidden = {"mixtral": 24, "qwen3_moe": 24, "gpt_oss": 24}[family]
    assert [lm.width(f"layers.1.mlp.experts.2.{point}") for point in ("pre", "post", "out")] == [hidden, hidden, 24]


def test_dense_layers_among_mixtures_have_none() -> None:
    lm = tiny("qwen3_moe")
    for point in ("router", "routing", "experts.0.pre"):
        with pytest.raises(UserError, match=rf"has no site 'layers\.0\.mlp\.{point}'"):
            lm.sites.resolve(f"layers.0.mlp.{point}")


@pytest.mark.parametrize("point", ["experts.4.pre", "experts.03.pre", "experts.0.hidden", "experts.-1.out"])
def test_an_expert_that_is_not_there_is_no_site(point: str) -> None:
    with pytest.raises(UserError, match="has no site"):
        tiny("mixtral").sites.resolve(f"layers.1.mlp.{point}")


@pytest.mark.parametrize("family", MIXTURES)
def test_tokens_follow_a_new_routing(family: str, ids: Tensor) -> None:
    lm = tiny(family)
    (routing,) = _captured(lm, ids, "mlp.routing")
    with lm.patch({"layers.1.mlp.routing": lambda x: x.roll(1, -1)}):
        turned, *outs = _captured(lm, ids, "mlp.routing", *(f"mlp.experts.{i}.out" for i in range(4)))
    assert torch.equal(turned, routing.roll(1, -1))
    for i, out in enumerate(outs):
        assert torch.equal(out.abs().amax(-1) > 0, turned[..., i] != 0)


def test_a_name_goes_before_the_path_of_a_module_that_is_called_alike(ids: Tensor) -> None:
    """The routers of gpt_oss, in the model without its head."""
    headless = LanguageModel(tiny("gpt_oss").model.base_model, None, "headless")
    name = "layers.1.mlp.router"
    assert headless.sites.resolve(name).side == "experts"
    assert headless.capture(ids, name)[name].shape == (2, 9, 4)
    assert headless.sites.resolve(f"{name}:out").side == "out"
    assert headless.sites.resolve("layers.1.mlp").side == "out"


@pytest.mark.parametrize("family", MIXTURES)
def test_an_edit_of_the_routers_logits_is_refused_before_the_model_runs(family: str) -> None:
    with (
        pytest.raises(
            UserError, match=r"edit at layers\.1\.mlp\.router would come after.*edit layers\.1\.mlp\.routing"
        ),
        tiny(family).patch({"layers.1.mlp.router": torch.zeros_like}),
    ):
        raise AssertionError("the block must not be entered")


def test_a_site_that_the_pass_does_not_reach_is_an_error(ids: Tensor) -> None:
    with (
        pytest.raises(UserError, match=r"never reached layers\.1\.attn\.pattern"),
        tiny("llama").patch({"layers.1.attn.pattern": torch.zeros_like}),
    ):
        tiny("llama").capture(ids, "layers.0.resid_post")


@pytest.mark.parametrize("family", ["gpt2", "gemma3", "gpt_oss"])
def test_edited_text_is_the_same_with_a_cache_of_keys_and_values_and_padding_on_the_left(
    family: str, ids: Tensor
) -> None:
    lm, mask = tiny(family), torch.ones(2, 9, dtype=torch.int64)
    mask[1, :3] = 0
    edits = {"layers.0.attn.pattern": torch.square, "layers.1.attn.v": torch.sin}
    options = {"attention_mask": mask, "max_new_tokens": 7, "do_sample": False, "pad_token_id": 0}
    with lm.patch(edits):
        texts = [lm.model.generate(ids, use_cache=use_cache, **options) for use_cache in (True, False)]
        edited = lm.logits(ids)
    assert torch.equal(*texts)
    assert (edited - lm.logits(ids)).abs().max() > 1e-3
