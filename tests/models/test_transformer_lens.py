"""TransformerLens' own numbers, of models as they are and as it rewrites them, against what is captured here."""

import importlib.util
import runpy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from unweave.errors import UserError
from unweave.models.language_model import LanguageModel
from unweave.models.transformer_lens import canonical

GOLDEN = Path(__file__).parent / "golden"
TOOL = Path(__file__).parents[2] / "tools" / "make_transformer_lens_golden.py"
FAMILIES = ["gpt2", "gpt_neox", "llama"]
HAS_LAYER_NORM = {"gpt2": True, "gpt_neox": True, "llama": False}
STREAM = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "hook_embed")
needs_transformer_lens = pytest.mark.skipif(
    importlib.util.find_spec("transformer_lens") is None, reason="transformer-lens is not installed"
)


@pytest.fixture(scope="module", params=FAMILIES)
def golden(request: pytest.FixtureRequest) -> tuple[LanguageModel, dict[str, Tensor]]:
    folder = GOLDEN / request.param
    return LanguageModel.load(folder), load_file(folder / "transformer_lens.safetensors")


def _names(held: dict[str, Tensor], kind: str) -> list[str]:
    names = [key.partition("/")[2] for key in held if key.startswith(f"{kind}/")]
    assert len(names) > 20
    return names


def _held(held: dict[str, Tensor], key: str) -> Tensor:
    """With heads side by side and the least number for -inf, as they are here."""
    x = held[key]
    return x.clamp(min=torch.finfo(x.dtype).min) if key.endswith(("scores", "pattern")) else x.flatten(2)


def _as_processed(name: str, has_layer_norm: bool) -> str:
    if not has_layer_norm:
        return name
    if name.endswith(STREAM):
        return f"{name}:centred"
    return f"{name}:unbiased" if name.endswith(("hook_z", "hook_v")) else name


def test_what_is_captured_by_a_transformer_lens_name_is_what_it_holds_there(
    golden: tuple[LanguageModel, dict[str, Tensor]],
) -> None:
    lm, held = golden
    names = _names(held, "raw")
    captured = lm.capture(held["tokens"], names)
    for name in names:
        torch.testing.assert_close(captured[name], _held(held, f"raw/{name}"), rtol=1e-5, atol=1e-5, msg=name)


def test_with_its_options_it_is_what_transformer_lens_makes_of_the_model(
    golden: tuple[LanguageModel, dict[str, Tensor]],
) -> None:
    """Folded norms, centred weights and folded value biases."""
    lm, held = golden
    has_layer_norm = HAS_LAYER_NORM[lm.model.config.model_type]
    names = {name: _as_processed(name, has_layer_norm) for name in _names(held, "processed")}
    captured = lm.capture(held["tokens"], list(names.values()))
    for name, here in names.items():
        there = _held(held, f"processed/{name}")
        torch.testing.assert_close(captured[here], there, rtol=1e-5, atol=2e-5, msg=here)
        if here != name:
            assert (there - _held(held, f"raw/{name}")).abs().max() > 0.01, f"{name} shows no difference"


def test_an_edit_through_an_option_that_changes_nothing_is_exact_and_else_moves_the_model_by_the_change(
    golden: tuple[LanguageModel, dict[str, Tensor]],
) -> None:
    lm, held = golden
    clean = lm.logits(held["tokens"])
    options = ["layers.1.resid_pre:centred", "layers.0.mlp_out:centred"]
    options += ["layers.1.attn.z:unbiased"] if HAS_LAYER_NORM[lm.model.config.model_type] else []
    for site in options:
        with lm.patch({site: torch.clone}):
            assert torch.equal(lm.logits(held["tokens"]), clean)
        plain = site.partition(":")[0]
        delta = torch.randn(lm.width(site))
        with lm.patch({site: lambda x, delta=delta: x + delta}):
            through = lm.logits(held["tokens"])
        with lm.patch({plain: lambda x, delta=delta: x + delta}):
            torch.testing.assert_close(through, lm.logits(held["tokens"]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("blocks.11.hook_resid_pre", "layers.11.resid_pre"),
        ("blocks.0.hook_mlp_in", "layers.0.resid_mid"),
        ("blocks.2.mlp.hook_pre_linear", "layers.2.mlp.pre_linear"),
        ("blocks.2.ln2.hook_normalized", "layers.2.ln2.normalized"),
        ("blocks.2.attn.hook_rot_q", "layers.2.attn.q"),
        ("blocks.2.attn.hook_pattern", "layers.2.attn.pattern"),
        ("hook_embed", "embed"),
        ("ln_final.hook_normalized", "ln_final.normalized"),
        ("blocks.3.hook_resid_post:centred", "layers.3.resid_post:centred"),
        ("blocks.3.hook_nothing", "blocks.3.hook_nothing"),
        ("model.layers.3.mlp:in", "model.layers.3.mlp:in"),
        ("layers.3.mlp_in", "layers.3.mlp_in"),
        ("", ""),
    ],
)
def test_names_are_translated_without_a_model(name: str, here: str) -> None:
    assert canonical(name) == here


@pytest.mark.parametrize(
    ("family", "site", "message"),
    [
        ("llama", "layers.0.attn.z:unbiased", r"no value bias was found for layers\.0\.attn\.z; leave :unbiased out"),
        ("gpt2", "layers.0.mlp_out:unbiased", r"no value bias was found for layers\.0\.mlp_out"),
        ("gpt2", "layers.0.mlp_out:centered", r"no site 'layers\.0\.mlp_out:centered'.*its options are"),
        ("gpt2", "layers.0.mlp_out:centred:centred", r"takes no second option :centred"),
        ("gpt2", "layers.0.ln1.normalized:centred", r"layers\.0\.ln1\.normalized takes no option"),
        ("gpt2", "layers.0.mlp_out:in", r"no site 'layers\.0\.mlp_out:in'"),
    ],
)
def test_an_option_that_does_not_fit_is_an_error(family: str, site: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        LanguageModel.load(GOLDEN / family).sites.resolve(site)


def test_an_option_stands_behind_any_spelling() -> None:
    lm, tokens = LanguageModel.load(GOLDEN / "gpt2"), torch.tensor([[3, 1, 4]])
    spellings = [
        "layers.1.mlp_out:centred",
        "blocks.1.hook_mlp_out:centred",
        "transformer.h.1.mlp:centred",
        "transformer.h.1.mlp:out:centred",
    ]
    captured = list(lm.capture(tokens, spellings).values())
    assert all(torch.equal(x, captured[0]) for x in captured)
    assert captured[0].mean(-1).abs().max() < 1e-6
    assert lm.sites.resolve(spellings[1]).name == spellings[0]
    assert lm.sites.resolve(spellings[2]).name == spellings[3]


class _HookPoint(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 12)
        self.hook_resid_pre, self.hook_resid_post = _HookPoint(), _HookPoint()

    def forward(self, x: Tensor) -> Tensor:
        x = self.hook_resid_pre(x)
        return self.hook_resid_post(x + self.linear(x).relu())


class _Hooked(nn.Module):
    """As a HookedTransformer is: called with tokens, returns logits, and has places for hooks as modules."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.blocks = nn.ModuleList([_Block(), _Block()])
        self.unembed = nn.Linear(12, 20)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.unembed(x)


def _check_by_path(lm: LanguageModel, tokens: Tensor) -> None:
    clean = lm.logits(tokens)
    x = lm.capture(tokens, "blocks.0.hook_resid_post")["blocks.0.hook_resid_post"]
    assert torch.equal(lm.capture(tokens, "blocks.1.hook_resid_pre")["blocks.1.hook_resid_pre"], x)
    with lm.patch({"blocks.0.hook_resid_post": torch.clone}):
        assert torch.equal(lm.logits(tokens), clean)
    with lm.patch({"blocks.0.hook_resid_post": torch.zeros_like}):
        assert (lm.logits(tokens) - clean).abs().max() > 1e-3
    assert lm.n_vocabulary == clean.shape[-1]
    assert lm.width("blocks.0.hook_resid_post") == x.shape[-1]
    assert lm.max_context is None
    assert repr(lm) == "LanguageModel('mine', on cpu)"


def test_any_torch_module_that_takes_tokens_and_returns_logits_is_read_and_edited_by_path() -> None:
    lm, tokens = LanguageModel(_Hooked(), None, "mine"), torch.randint(20, (2, 9))
    assert torch.equal(lm.logits(tokens), lm.model(tokens))
    _check_by_path(lm, tokens)
    with pytest.raises(UserError, match=r"_Hooked model has no site 'layers\.0\.attn_out'"):
        lm.sites.resolve("layers.0.attn_out")


@needs_transformer_lens
@pytest.mark.parametrize("is_processed", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore")
def test_a_hooked_transformer_is_read_and_edited_by_path_and_holds_what_is_captured_here(
    family: str, is_processed: bool
) -> None:
    tool: dict[str, Any] = runpy.run_path(str(TOOL))
    ours = LanguageModel.load(GOLDEN / family)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        there = LanguageModel(tool["hooked"](family, ours.model, is_processed), None, "mine")
    tokens = torch.randint(40, (2, 9))
    _check_by_path(there, tokens)
    has_layer_norm = HAS_LAYER_NORM[family] and is_processed
    for name in ("blocks.0.hook_resid_post", "blocks.1.hook_attn_out", "blocks.1.ln2.hook_normalized"):
        here = _as_processed(name, has_layer_norm)
        held = there.capture(tokens, name)[name]
        torch.testing.assert_close(ours.capture(tokens, here)[here], held, rtol=1e-4, atol=5e-5)
