import pytest
import torch
from torch import Tensor, nn

from tests.models.families import stir, tiny
from unweave.errors import UserError
from unweave.models.attention import POINTS as INSIDE
from unweave.models.language_model import LanguageModel
from unweave.models.layout import POINTS
from unweave.models.proof import prove

ALIASES = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "attn.hook_z": "attn.z",
    "ln1.hook_normalized": "ln1.normalized",
    "ln2.hook_normalized": "ln2.normalized",
    "mlp.hook_pre": "mlp.pre",
    "mlp.hook_post": "mlp.post",
    "hook_mlp_in": "resid_mid",
}


def test_names_are_in_order_of_depth(lm: LanguageModel) -> None:
    family = lm.model.config.model_type
    absent = {"mlp.router", "mlp.routing"} | (set() if family == "llama" else {"mlp.pre_linear"})
    absent |= {f"attn.{point}" for point in INSIDE} if family == "gpt_neo" else set()
    points = [point for point in POINTS if point not in absent]
    within = [f"layers.{layer}.{point}" for layer in range(3) for point in points]
    assert lm.sites.names() == ["embed", *within, "ln_final.normalized", "ln_final"]


def test_a_canonical_name_resolves_to_itself_and_to_a_module_that_exists(lm: LanguageModel) -> None:
    for name in lm.sites.names():
        site = lm.sites.resolve(name)
        assert site.name == name
        lm.model.get_submodule(site.module)
        assert site.side in ("in", "out", "stream", "norm", "attention")


@pytest.mark.parametrize(("alias", "point"), ALIASES.items())
def test_a_transformer_lens_name_means_the_same_site(lm: LanguageModel, alias: str, point: str) -> None:
    assert lm.sites.resolve(f"blocks.1.{alias}") == lm.sites.resolve(f"layers.1.{point}")


def test_a_bare_module_path_is_its_output_unless_it_says_in(gpt2: LanguageModel) -> None:
    assert gpt2.sites.resolve("transformer.h.1.mlp") == gpt2.sites.resolve("transformer.h.1.mlp:out")
    assert gpt2.sites.resolve("transformer.h.1.mlp:in")[:3] == ("transformer.h.1.mlp:in", "transformer.h.1.mlp", "in")


def test_a_path_may_leave_out_the_model_around_which_there_is_a_head(gpt2: LanguageModel) -> None:
    assert gpt2.sites.resolve("h.1.mlp:in") == gpt2.sites.resolve("transformer.h.1.mlp:in")
    assert gpt2.sites.resolve("h.1.mlp:in").name == "transformer.h.1.mlp:in"


def test_the_name_of_a_place_is_never_taken_for_such_a_path() -> None:
    moe = tiny("gpt_oss")
    assert "model.layers.1.mlp.router" in dict(moe.model.named_modules())
    assert moe.sites.resolve("layers.1.mlp.router").name == "layers.1.mlp.router"
    assert moe.sites.resolve("layers.1.mlp").name == "model.layers.1.mlp:out"


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


def test_a_model_that_cannot_be_probed_says_why_and_still_has_its_module_paths() -> None:
    """T5 reads a second text for its decoder, which nothing tells."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=63, d_model=12, num_layers=2, num_heads=2, d_kv=6, d_ff=20)
    t5 = LanguageModel(T5ForConditionalGeneration(config), None, "t5")
    assert t5.sites.names() == []
    assert t5.sites.final_norm() is None
    assert t5.width("encoder.block.1.layer.1.DenseReluDense.wi") == 20
    with pytest.raises(UserError, match=r"no site 'layers\.0\.resid_post'; it has no named sites, as a pass on a few"):
        t5.sites.resolve("layers.0.resid_post")


def test_blocks_that_share_their_weights_have_no_names() -> None:
    """One module runs for all blocks of ALBERT, so what is at its edge is no place in the model."""
    from transformers import AlbertConfig, AlbertModel

    shape = {"embedding_size": 12, "hidden_size": 12, "num_attention_heads": 2, "intermediate_size": 20}
    albert = LanguageModel(AlbertModel(AlbertConfig(vocab_size=63, num_hidden_layers=2, **shape)), None, "albert")
    assert albert.sites.names() == []
    with pytest.raises(UserError, match="as no list of blocks was found"):
        albert.sites.resolve("layers.0.resid_post")


def test_where_a_block_is_not_of_attention_and_mlp_only_its_ends_are_named() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(7)
    config = MambaConfig(vocab_size=63, hidden_size=12, num_hidden_layers=2, state_size=4)
    mamba = LanguageModel(MambaForCausalLM(config), None, "mamba")
    within = [f"layers.{layer}.{point}" for layer in range(2) for point in ("resid_pre", "resid_post")]
    assert mamba.sites.names() == ["embed", *within, "ln_final.normalized", "ln_final"]
    with pytest.raises(UserError, match=r"no site 'layers\.1\.attn_out'"):
        mamba.sites.resolve("layers.1.attn_out")


class _Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.values, self.project = nn.Linear(12, 12), nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.values(x).flip(1))


class _MixedBlock(nn.Module):
    """Attention and MLP one after the other or side by side, for each block as it was made."""

    def __init__(self, is_parallel: bool) -> None:
        super().__init__()
        self.norm, self.late_norm = nn.LayerNorm(12), nn.LayerNorm(12)
        self.attention, self.mlp = _Heads(), nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 12))
        self.is_parallel = is_parallel

    def forward(self, x: Tensor) -> Tensor:
        added = self.attention(self.norm(x))
        if self.is_parallel:
            return x + added + self.mlp(self.late_norm(x))
        x = x + added
        return x + self.mlp(self.late_norm(x))


class _InPlaceBlock(_MixedBlock):
    """Writes all that it adds into the tensor that it was given."""

    def forward(self, x: Tensor) -> Tensor:
        x += self.attention(self.norm(x))
        x += self.mlp(self.late_norm(x))
        return x


class _TwoReadersBlock(_MixedBlock):
    """Two MLPs read the same stream, each behind a norm of its own."""

    def __init__(self) -> None:
        super().__init__(is_parallel=False)
        self.other_norm = nn.LayerNorm(12)
        self.other = nn.Linear(12, 12)
        self.sum = _Sum()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm(x))
        return x + self.sum(self.mlp(self.late_norm(x)), self.other(self.other_norm(x)))


class _Sum(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class _Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 12)
        self.layers = nn.ModuleList([_MixedBlock(False), _MixedBlock(True)])
        self.head = nn.Linear(12, 20)
        self.n_calls = 0

    def forward(self, tokens: Tensor) -> Tensor:
        self.n_calls += 1
        x = self.embedding(tokens)
        for block in self.layers:
            x = block(x)
        return self.head(x)


def test_each_block_is_solved_on_its_own() -> None:
    model = _Mixed()
    stir(model)
    lm = LanguageModel(model, None, "mixed")
    assert lm.sites.layout.kinds == ("sequential", "parallel")
    assert lm.sites.resolve("layers.0.resid_mid").module == "layers.0.late_norm"
    with pytest.raises(UserError, match=r"no site 'layers\.1\.resid_mid'"):
        lm.sites.resolve("layers.1.resid_mid")
    assert lm.sites.resolve("layers.1.ln2.normalized").module == "layers.1.late_norm"


def test_a_stream_that_is_written_into_is_captured_as_it_was_and_edited_in_all_its_places() -> None:
    model = _Mixed()
    model.layers = nn.ModuleList([_InPlaceBlock(False), _InPlaceBlock(False)])
    stir(model)
    lm, tokens = LanguageModel(model, None, "in place"), torch.randint(20, (2, 9))
    assert lm.sites.layout.kinds == ("sequential", "sequential")
    x = lm.capture(tokens, lm.sites.names())
    for layer in range(2):
        pre, attn, mid, mlp, post = (
            x[f"layers.{layer}.{point}"] for point in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
        )
        torch.testing.assert_close(mid, pre + attn)
        torch.testing.assert_close(post, mid + mlp)
    assert torch.equal(x["layers.1.resid_pre"], x["layers.0.resid_post"])
    assert prove(lm).problems == ()


def test_a_stream_with_two_readers_has_no_site_where_an_edit_would_reach_one_of_them() -> None:
    model = _Mixed()
    model.layers = nn.ModuleList([_TwoReadersBlock(), _TwoReadersBlock()])
    stir(model)
    lm = LanguageModel(model, None, "two readers")
    assert lm.sites.layout.kinds == ("sequential", "sequential")
    assert lm.sites.resolve("layers.0.mlp_out").module == "layers.0.sum"
    assert "layers.0.resid_mid" not in lm.sites.names()
    assert prove(lm).problems == ()


def test_the_model_is_probed_once_and_only_for_a_named_site() -> None:
    model = _Mixed()
    lm, tokens = LanguageModel(model, None, "mixed"), torch.randint(20, (2, 9))
    lm.capture(tokens, "layers.1.mlp")
    assert model.n_calls == 1
    lm.capture(tokens, "layers.1.resid_post")
    assert model.n_calls == 3
    lm.capture(tokens, ["layers.0.resid_mid", "layers.1.mlp_out"])
    assert model.n_calls == 4


def test_a_probe_leaves_no_trace_in_the_random_state_or_the_model() -> None:
    lm = LanguageModel(_Mixed(), None, "mixed")
    before = torch.random.get_rng_state()
    with torch.inference_mode():
        assert lm.sites.n_layers == 2
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in lm.model.modules())


def test_a_probe_within_a_patch_hears_nothing_of_it_and_is_not_taken_for_the_users_pass() -> None:
    model = _Mixed()
    stir(model)
    plain = LanguageModel(model, None, "mixed")
    tokens, seen = torch.randint(20, (2, 9)), []

    def look(x: Tensor) -> Tensor:
        seen.append(x.shape)
        return torch.zeros_like(x)

    with plain.patch({"layers.0.mlp": look}):
        assert plain.sites.n_layers == 2
        assert plain.sites.layout.kinds == ("sequential", "parallel")
        assert not seen
        plain.capture(tokens, "layers.1.resid_post")
    assert seen == [(2, 9, 12)]
    fresh = LanguageModel(model, None, "fresh")
    with pytest.raises(UserError, match="never reached"), fresh.patch({"layers.0.mlp": look}):
        assert fresh.sites.n_layers == 2


def test_sites_can_be_keys_and_are_equal_however_they_were_asked_for() -> None:
    lm = tiny("granite")
    assert lm.sites.resolve("layers.0.attn_out") == lm.sites.resolve("blocks.0.hook_attn_out")
    assert len({lm.sites.resolve(name) for name in lm.sites.names()}) == len(lm.sites.names())
