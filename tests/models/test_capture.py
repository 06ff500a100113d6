import pytest
import torch
from torch import Tensor, nn

from unweave.errors import UserError
from unweave.models.language_model import LanguageModel

LAYERS = range(3)


def _one(lm: LanguageModel, tokens: Tensor, site: str) -> Tensor:
    (x,) = lm.capture(tokens, [site]).values()
    return x


def _hidden_states(lm: LanguageModel, tokens: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return lm.model(input_ids=tokens, output_hidden_states=True, use_cache=False).hidden_states


def test_the_residual_stream_is_what_hugging_face_calls_hidden_states(lm: LanguageModel, tokens: Tensor) -> None:
    states = _hidden_states(lm, tokens)
    assert len(states) == 4
    for layer in LAYERS:
        assert torch.equal(_one(lm, tokens, f"layers.{layer}.resid_pre"), states[layer])
    for layer in LAYERS[:-1]:
        assert torch.equal(_one(lm, tokens, f"layers.{layer}.resid_post"), states[layer + 1])
    norm = lm.sites.final_norm()
    assert norm is not None
    assert torch.equal(norm(_one(lm, tokens, "layers.2.resid_post")), states[3])


def test_the_residual_stream_adds_up_exactly(lm: LanguageModel, tokens: Tensor) -> None:
    for layer in LAYERS:
        points = ["resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"]
        x = lm.capture(tokens, [f"layers.{layer}.{point}" for point in points])
        pre, attn, mid, mlp, post = (x[f"layers.{layer}.{point}"] for point in points)
        assert torch.equal(mid, pre + attn)
        assert torch.equal(post, mid + mlp)
        assert attn.abs().max() > 0.01
        assert mlp.abs().max() > 0.01


PROJECTIONS = {
    "gpt2": ("transformer.h.{}.attn.c_proj", "transformer.h.{}.mlp.c_proj"),
    "gpt_neo": ("transformer.h.{}.attn.attention.out_proj", "transformer.h.{}.mlp.c_proj"),
    "llama": ("model.layers.{}.self_attn.o_proj", "model.layers.{}.mlp.down_proj"),
}


def _times_weight(lm: LanguageModel, path: str, x: Tensor) -> Tensor:
    module = lm.model.get_submodule(path)
    weight = module.weight.T if isinstance(module, nn.Linear) else module.weight
    return x @ weight + (module.bias if module.bias is not None else 0.0)


@pytest.mark.parametrize("layer", LAYERS)
def test_what_enters_a_projection_gives_what_leaves_the_sublayer(lm: LanguageModel, tokens: Tensor, layer: int) -> None:
    to_attn_out, to_mlp_out = PROJECTIONS[lm.model.config.model_type]
    x = lm.capture(tokens, [f"layers.{layer}.{point}" for point in ("attn.z", "attn_out", "mlp.post", "mlp_out")])
    z, attn_out, post, mlp_out = x.values()
    torch.testing.assert_close(_times_weight(lm, to_attn_out.format(layer), z), attn_out, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(_times_weight(lm, to_mlp_out.format(layer), post), mlp_out, rtol=1e-5, atol=1e-5)


def test_what_the_mlp_reads_gives_what_it_writes(lm: LanguageModel, tokens: Tensor) -> None:
    for layer in LAYERS:
        mlp = lm.model.get_submodule(lm.sites.resolve(f"layers.{layer}.mlp_out").module)
        x = lm.capture(tokens, [f"layers.{layer}.mlp_in", f"layers.{layer}.mlp_out"])
        with torch.no_grad():
            assert torch.equal(mlp(x[f"layers.{layer}.mlp_in"]), x[f"layers.{layer}.mlp_out"])


def test_gated_mlps_show_gate_times_up(language_models: dict[str, LanguageModel], tokens: Tensor) -> None:
    lm = language_models["llama"]
    mlp = lm.model.get_submodule("model.layers.1.mlp")
    x = lm.capture(tokens, ["layers.1.mlp_in", "layers.1.mlp.post"])
    read = x["layers.1.mlp_in"]
    by_hand = torch.nn.functional.silu(read @ mlp.gate_proj.weight.T) * (read @ mlp.up_proj.weight.T)
    torch.testing.assert_close(x["layers.1.mlp.post"], by_hand, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("blocks.1.hook_resid_pre", "layers.1.resid_pre"),
        ("blocks.1.hook_resid_mid", "layers.1.resid_mid"),
        ("blocks.1.hook_resid_post", "layers.1.resid_post"),
        ("blocks.1.hook_attn_out", "layers.1.attn_out"),
        ("blocks.1.attn.hook_z", "layers.1.attn.z"),
        ("blocks.1.mlp.hook_post", "layers.1.mlp.post"),
        ("blocks.1.hook_mlp_out", "layers.1.mlp_out"),
        ("blocks.1.hook_mlp_in", "layers.1.resid_mid"),
    ],
)
def test_a_transformer_lens_name_captures_the_same_tensor(
    lm: LanguageModel, tokens: Tensor, spelling: str, canonical: str
) -> None:
    captured = lm.capture(tokens, [spelling])
    assert list(captured) == [spelling]
    assert torch.equal(captured[spelling], _one(lm, tokens, canonical))


def test_a_bare_module_path_captures_what_leaves_or_enters_the_module(gpt2: LanguageModel, tokens: Tensor) -> None:
    mlp = gpt2.model.get_submodule("transformer.h.1.mlp")
    x = gpt2.capture(tokens, ["transformer.h.1.mlp", "transformer.h.1.mlp:in", "transformer.h.1.attn"])
    assert torch.equal(x["transformer.h.1.mlp"], _one(gpt2, tokens, "layers.1.mlp_out"))
    assert torch.equal(x["transformer.h.1.attn"], _one(gpt2, tokens, "layers.1.attn_out"))
    with torch.no_grad():
        assert torch.equal(mlp(x["transformer.h.1.mlp:in"]), x["transformer.h.1.mlp"])


def test_logits_can_be_captured_by_the_path_of_the_head(lm: LanguageModel, tokens: Tensor) -> None:
    assert torch.equal(_one(lm, tokens, "lm_head"), lm.logits(tokens))


def test_several_sites_come_from_one_pass_in_the_order_asked(lm: LanguageModel, tokens: Tensor) -> None:
    sites = ["layers.2.mlp_out", "layers.0.resid_pre", "layers.1.attn.z", "layers.0.resid_pre"]
    passes = []
    with lm.model.get_input_embeddings().register_forward_hook(lambda *_: passes.append(1)):
        captured = lm.capture(tokens, sites)
    assert list(captured) == ["layers.2.mlp_out", "layers.0.resid_pre", "layers.1.attn.z"]
    assert len(passes) == 1
    for site, x in captured.items():
        assert torch.equal(x, _one(lm, tokens, site))


def test_every_site_at_once_is_each_site_alone(lm: LanguageModel, tokens: Tensor) -> None:
    together = lm.capture(tokens, lm.sites.names())
    for site, x in together.items():
        assert torch.equal(x, _one(lm, tokens, site))
        if lm.sites.resolve(site).has_rows:
            assert x.shape == (2, 9, lm.width(site))
        else:
            assert x.shape == (2, 4, 9, 9)


@pytest.mark.parametrize(
    ("site", "last_block"), [("layers.0.resid_pre", -1), ("layers.1.attn_out", 1), ("layers.1.resid_post", 1)]
)
def test_the_pass_ends_at_the_deepest_site(lm: LanguageModel, tokens: Tensor, site: str, last_block: int) -> None:
    prefix = lm.sites.resolve("layers.0.resid_pre").module.removesuffix("0")
    ran: list[str] = []
    watched = [f"{prefix}{layer}" for layer in LAYERS] + ["lm_head"]
    handles = [
        lm.model.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: ran.append(name))
        for name in watched
    ]
    try:
        lm.capture(tokens, ["layers.0.resid_pre", site])
    finally:
        for handle in handles:
            handle.remove()
    assert "lm_head" not in ran
    assert [name for name in ran if name not in watched[: last_block + 1]] in (
        [],
        [f"{prefix}0"] if last_block < 0 else [],
    )


def test_nothing_of_the_mlp_runs_when_only_the_attention_is_wanted(gpt2: LanguageModel, tokens: Tensor) -> None:
    ran = []
    with gpt2.model.get_submodule("transformer.h.1.mlp").register_forward_hook(lambda *_: ran.append(1)):
        gpt2.capture(tokens, ["layers.1.attn_out"])
    assert not ran


def test_capturing_leaves_the_model_as_it_was(lm: LanguageModel, tokens: Tensor) -> None:
    before, states = lm.logits(tokens), _hidden_states(lm, tokens)
    lm.capture(tokens, ["layers.1.resid_mid"])
    assert torch.equal(lm.logits(tokens), before)
    for then, now in zip(states, _hidden_states(lm, tokens), strict=True):
        assert torch.equal(then, now)


def test_captured_tensors_need_no_gradient(lm: LanguageModel, tokens: Tensor) -> None:
    assert not _one(lm, tokens, "layers.1.resid_post").requires_grad


def test_widths_are_those_of_the_weights(language_models: dict[str, LanguageModel]) -> None:
    widths = {"gpt2": (28, 28, 100), "gpt_neo": (28, 28, 100), "llama": (24, 24, 50)}
    for family, lm in language_models.items():
        sites = ("layers.1.resid_post", "layers.1.attn.z", "layers.1.mlp.post")
        assert tuple(lm.width(site) for site in sites) == widths[family]
        assert lm.max_context == 63
        assert lm.n_vocabulary == lm.model.get_input_embeddings().weight.shape[0]


def test_a_pass_that_fails_leaves_no_hook(gpt2: LanguageModel, lm: LanguageModel) -> None:
    """The fixture checks the hooks."""
    with pytest.raises(IndexError):
        lm.capture(torch.tensor([[10**6]]), ["layers.1.resid_post"])


def test_no_site_at_all_is_an_error(gpt2: LanguageModel, tokens: Tensor) -> None:
    with pytest.raises(UserError, match="at least one site"):
        gpt2.capture(tokens, [])


def test_a_module_that_never_runs_is_an_error(lm: LanguageModel, tokens: Tensor) -> None:
    blocks = lm.sites.resolve("layers.0.resid_pre").module.removesuffix(".0")
    with pytest.raises(UserError, match=rf"never reached {blocks}; did you mean"):
        lm.capture(tokens, [blocks, "layers.1.resid_post"])


def test_an_unknown_site_among_known_ones_is_an_error(gpt2: LanguageModel, tokens: Tensor) -> None:
    with pytest.raises(UserError, match=r"did you mean 'layers\.1\.mlp_out'"):
        gpt2.capture(tokens, ["layers.1.resid_post", "layers.1.mlp_oout"])


def test_a_module_that_reads_no_activations_is_an_error(lm: LanguageModel, tokens: Tensor) -> None:
    """The embedding reads token ids, which are not activations."""
    names = {id(module): name for name, module in lm.model.named_modules()}
    embedding = names[id(lm.model.get_input_embeddings())]
    with pytest.raises(UserError, match=embedding):
        lm.capture(tokens, [f"{embedding}:in"])


def test_one_site_may_be_named_without_a_list(lm: LanguageModel, tokens: Tensor) -> None:
    site = "layers.1.resid_post"
    assert torch.equal(lm.capture(tokens, site)[site], _one(lm, tokens, site))


def test_text_becomes_one_sequence_behind_the_beginning_of_text(lm: LanguageModel) -> None:
    tokens = lm.tokens("over and under")
    assert tokens[0, 0] == lm.tokenizer.bos_token_id
    assert lm.tokenizer.decode(tokens[0, 1:]) == "over and under"


def test_an_edit_that_returns_nothing_or_another_shape_is_named(lm: LanguageModel, tokens: Tensor) -> None:
    with (
        pytest.raises(UserError, match=r"must return a tensor .* returned NoneType"),
        lm.patch(
            {"layers.1.mlp_out": lambda x: None}  # type: ignore[arg-type, return-value]
        ),
    ):
        lm.logits(tokens)
    with pytest.raises(UserError, match="must return a tensor"), lm.patch({"layers.1.mlp_out": lambda x: x[:, 1:]}):
        lm.logits(tokens)
