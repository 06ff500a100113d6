from dataclasses import fields

import pytest
import torch
from torch import Tensor

from unweave.coders import Wiring, trainable_architectures
from unweave.coders.temporal import Temporal, TemporalConfig
from unweave.errors import UserError
from unweave.models.language_model import LanguageModel, LatentEdit
from unweave.types import Codes

SETTINGS = {"k": 7, "n_experts": 3, "n_p": 3, "n_q": 3}
"""For those architectures that have them."""
POINTS = ["resid_pre", "resid_mid", "resid_post", "attn_out", "attn.z", "mlp_in", "mlp.post", "mlp_out"]


@pytest.mark.parametrize("point", POINTS)
def test_an_edit_that_changes_nothing_leaves_the_logits_bit_for_bit(
    lm: LanguageModel, tokens: Tensor, point: str
) -> None:
    clean = lm.logits(tokens)
    with lm.patch({f"layers.1.{point}": lambda x: x}):
        assert torch.equal(lm.logits(tokens), clean)
    with lm.patch({f"layers.1.{point}": lambda x: x.clone()}):
        assert torch.equal(lm.logits(tokens), clean)


@pytest.mark.parametrize("point", POINTS)
def test_zeros_at_a_site_change_the_logits(lm: LanguageModel, tokens: Tensor, point: str) -> None:
    clean = lm.logits(tokens)
    with lm.patch({f"layers.1.{point}": torch.zeros_like}):
        patched = lm.logits(tokens)
    assert (patched - clean).abs().max() > 1e-3
    assert torch.equal(lm.logits(tokens), clean)


@pytest.mark.parametrize("point", ["resid_pre", "resid_post", "attn_out", "mlp_out"])
def test_what_is_added_to_a_site_is_added_to_the_stream(lm: LanguageModel, tokens: Tensor, point: str) -> None:
    """Read right behind the site, before anything but additions has happened to it."""
    behind = {"resid_pre": "resid_pre", "attn_out": "resid_mid", "resid_post": "resid_post", "mlp_out": "resid_post"}[
        point
    ]
    site, delta = f"layers.1.{behind}", torch.randn(lm.width("layers.1.resid_pre"))
    clean = lm.capture(tokens, [site])[site]
    with lm.patch({f"layers.1.{point}": lambda x: x + delta}):
        patched = lm.capture(tokens, [site])[site]
    torch.testing.assert_close(patched, clean + delta, rtol=1e-5, atol=1e-5)


def test_an_edit_of_the_middle_of_a_block_goes_on_in_the_stream(lm: LanguageModel, tokens: Tensor) -> None:
    """resid_post = resid_mid + mlp_out holds for the edited stream too: the edit is not seen by the MLP alone."""
    delta = torch.randn(lm.width("layers.1.resid_mid"))
    mid, out, post = (f"layers.1.{point}" for point in ("resid_mid", "mlp_out", "resid_post"))
    clean = lm.capture(tokens, [mid])[mid]
    with lm.patch({mid: lambda x: x + delta}):
        patched = lm.capture(tokens, [out, post])
    torch.testing.assert_close(patched[post], clean + delta + patched[out], rtol=1e-5, atol=1e-5)


def test_zeroing_the_middle_of_a_block_leaves_only_its_mlp(lm: LanguageModel, tokens: Tensor) -> None:
    mid, out, post = (f"layers.1.{point}" for point in ("resid_mid", "mlp_out", "resid_post"))
    with lm.patch({mid: torch.zeros_like}):
        patched = lm.capture(tokens, [out, post])
    torch.testing.assert_close(patched[post], patched[out], rtol=1e-5, atol=1e-5)


def test_an_edit_at_one_position_changes_no_earlier_one(lm: LanguageModel, tokens: Tensor) -> None:
    delta = torch.zeros(9, lm.width("layers.0.resid_post"))
    delta[5].normal_()

    clean = lm.logits(tokens)
    with lm.patch({"layers.0.resid_post": lambda x: x + delta}):
        patched = lm.logits(tokens)
    torch.testing.assert_close(patched[:, :5], clean[:, :5], rtol=1e-5, atol=1e-5)
    assert (patched[:, 5:] - clean[:, 5:]).abs().amax(-1).min() > 1e-4


def test_two_sites_are_patched_in_one_pass(lm: LanguageModel, tokens: Tensor) -> None:
    edits = {"layers.0.mlp_out": torch.zeros_like, "blocks.2.hook_attn_out": torch.zeros_like}
    sites = ["layers.0.resid_mid", "layers.0.resid_post", "layers.2.resid_pre", "layers.2.resid_mid"]
    with lm.patch(edits):
        x = lm.capture(tokens, sites)
    assert torch.equal(x[sites[0]], x[sites[1]])
    assert torch.equal(x[sites[2]], x[sites[3]])


def test_patches_nest_and_the_inner_one_comes_second(lm: LanguageModel, tokens: Tensor) -> None:
    site = "layers.1.resid_post"
    clean = lm.capture(tokens, [site])[site]
    with lm.patch({site: lambda x: 2 * x}):
        with lm.patch({site: lambda x: x + 7}):
            inner = lm.capture(tokens, [site])[site]
        outer = lm.capture(tokens, [site])[site]
    assert torch.equal(inner, 2 * clean + 7)
    assert torch.equal(outer, 2 * clean)
    assert torch.equal(lm.capture(tokens, [site])[site], clean)


def test_a_nested_patch_ends_alone(lm: LanguageModel, tokens: Tensor) -> None:
    with lm.patch({"layers.0.mlp_out": torch.zeros_like}):
        alone = lm.logits(tokens)
        with lm.patch({"layers.2.mlp_out": torch.zeros_like}):
            assert not torch.equal(lm.logits(tokens), alone)
        assert torch.equal(lm.logits(tokens), alone)


def test_a_patch_in_which_the_model_never_ran_is_an_error(lm: LanguageModel) -> None:
    with (
        pytest.raises(UserError, match=r"never reached layers\.1\.resid_post.*; run the model"),
        lm.patch({"layers.1.resid_post": torch.zeros_like}),
    ):
        pass


def test_a_patch_at_a_module_that_the_model_never_uses_is_an_error(lm: LanguageModel, tokens: Tensor) -> None:
    blocks = lm.sites.resolve("layers.0.resid_pre").module.removesuffix(".0")
    edits = {blocks: torch.zeros_like, "layers.1.mlp_out": torch.zeros_like}
    with pytest.raises(UserError, match=rf"never reached {blocks}:out;"), lm.patch(edits):
        lm.logits(tokens)


def test_an_unknown_site_is_refused_before_the_model_runs(lm: LanguageModel) -> None:
    with (
        pytest.raises(UserError, match=r"did you mean 'layers\.1\.mlp_out'"),
        lm.patch({"layers.1.mlp_oout": torch.zeros_like}),
    ):
        raise AssertionError("the block must not be entered")


def test_an_exception_within_the_block_is_passed_on_and_leaves_no_hook(lm: LanguageModel, tokens: Tensor) -> None:
    clean = lm.logits(tokens)
    with pytest.raises(KeyError, match="mine"), lm.patch({"layers.1.mlp_out": torch.zeros_like}):
        raise KeyError("mine")
    assert torch.equal(lm.logits(tokens), clean)


def test_an_exception_within_an_edit_is_passed_on_and_leaves_no_hook(lm: LanguageModel, tokens: Tensor) -> None:
    def fail(x: Tensor) -> Tensor:
        raise ZeroDivisionError("in the edit")

    with pytest.raises(ZeroDivisionError, match="in the edit"), lm.patch({"layers.1.resid_mid": fail}):
        lm.logits(tokens)


def test_logits_of_a_whole_submodule_can_be_patched_by_path(lm: LanguageModel, tokens: Tensor) -> None:
    """The transformer below the head returns a Hugging Face output object, not a tensor."""
    clean = lm.logits(tokens)
    body = lm.model.base_model_prefix
    with lm.patch({body: lambda x: x}):
        assert torch.equal(lm.logits(tokens), clean)
    with lm.patch({body: torch.zeros_like}):
        assert torch.equal(lm.logits(tokens), torch.zeros_like(clean))


@pytest.fixture(params=sorted(trainable_architectures()))
def latent_edit(request: pytest.FixtureRequest, gpt2: LanguageModel) -> LatentEdit:
    cls = trainable_architectures()[request.param]
    known = {field.name for field in fields(cls.Config)}
    settings = {key: value for key, value in SETTINGS.items() if key in known}
    coder = cls(cls.Config(n_latents=63, **settings), Wiring.sae(gpt2.width("layers.1.resid_post")))
    with torch.no_grad():
        for parameter in coder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return LatentEdit(coder.requires_grad_(False), lambda codes: codes)


@pytest.mark.parametrize("point", ["resid_pre", "resid_mid", "resid_post", "mlp_out", "attn.z"])
def test_latents_that_are_left_alone_leave_the_model_bit_for_bit(
    gpt2: LanguageModel, tokens: Tensor, latent_edit: LatentEdit, point: str
) -> None:
    site = f"layers.1.{point}"
    x, clean = gpt2.capture(tokens, [site])[site], gpt2.logits(tokens)
    assert len(latent_edit.coder.encode(x.flatten(0, 1)).values) > 0
    assert torch.equal(latent_edit(x), x)
    with gpt2.patch({site: latent_edit}):
        assert torch.equal(gpt2.logits(tokens), clean)


def test_an_ablated_latent_takes_its_decoder_row_away_and_nothing_else(
    gpt2: LanguageModel, tokens: Tensor, latent_edit: LatentEdit
) -> None:
    site = "layers.1.resid_post"
    x = gpt2.capture(tokens, [site])[site]
    coder = latent_edit.coder
    active = coder.encode(x.flatten(0, 1)).dense()
    latent = int(active.sum(0).argmax())

    def ablate(codes: Codes) -> Codes:
        return codes.with_values(codes.values.masked_fill(codes.latent_ids == latent, 0.0))

    with gpt2.patch({site: latent_edit._replace(change=ablate)}):
        patched = gpt2.capture(tokens, [site])[site]
    by_hand = x.flatten(0, 1) - active[:, latent, None] * coder.W_dec[latent]
    torch.testing.assert_close(patched.flatten(0, 1), by_hand, rtol=1e-5, atol=1e-5)
    silent = active[:, latent] == 0
    assert torch.equal(patched.flatten(0, 1)[silent], x.flatten(0, 1)[silent])


def test_a_latent_can_be_switched_on_where_it_was_silent(
    gpt2: LanguageModel, tokens: Tensor, latent_edit: LatentEdit
) -> None:
    site, latent, strength = "layers.1.resid_post", 7, 6.3

    def steer(codes: Codes) -> Codes:
        n = codes.n_rows
        return Codes(torch.full((n,), strength), torch.full((n,), latent), torch.arange(n + 1), codes.n_latents)

    x = gpt2.capture(tokens, [site])[site]
    coder = latent_edit.coder
    with gpt2.patch({site: latent_edit._replace(change=steer)}):
        patched = gpt2.capture(tokens, [site])[site]
    rows = x.flatten(0, 1)
    by_hand = rows - coder.encode(rows).dense() @ coder.W_dec + strength * coder.W_dec[latent]
    torch.testing.assert_close(patched.flatten(0, 1), by_hand, rtol=1e-4, atol=1e-4)


def test_an_edit_of_the_blocks_output_sees_the_change_made_in_its_middle(lm: LanguageModel, tokens: Tensor) -> None:
    """Whatever the order in which the two were asked for."""
    seen: list[Tensor] = []

    def look(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    middle, after = "layers.1.resid_mid", "layers.1.resid_post"
    with lm.patch({after: look}), lm.patch({middle: lambda x: x + 1.0}):
        lm.logits(tokens)
    with lm.patch({middle: lambda x: x + 1.0, after: look}):
        lm.logits(tokens)
    assert torch.equal(seen[0], seen[1])


def _temporal_edit(gpt2: LanguageModel) -> LatentEdit:
    config = TemporalConfig(n_latents=63, n_heads=3, d_key=9, k=7, n_layers=2)
    coder = Temporal(config, Wiring.sae(gpt2.width("layers.1.resid_post"), "layers.1.resid_post"))
    return LatentEdit(coder.requires_grad_(False), lambda codes: codes)


def test_latents_of_sequences_that_are_left_alone_leave_the_model_bit_for_bit(
    gpt2: LanguageModel, tokens: Tensor
) -> None:
    edit, clean = _temporal_edit(gpt2), gpt2.logits(tokens)
    with gpt2.patch({"layers.1.resid_post": edit}):
        assert torch.equal(gpt2.logits(tokens), clean)


def test_what_earlier_positions_predict_stays_when_a_latent_is_ablated(gpt2: LanguageModel, tokens: Tensor) -> None:
    site, edit = "layers.1.resid_post", _temporal_edit(gpt2)
    x = gpt2.capture(tokens, [site])[site]
    active = edit.coder.encode(x).dense()
    latent = int(active.sum(0).argmax())

    def ablate(codes: Codes) -> Codes:
        return codes.with_values(codes.values.masked_fill(codes.latent_ids == latent, 0.0))

    with gpt2.patch({site: edit._replace(change=ablate)}):
        patched = gpt2.capture(tokens, [site])[site]
    assert (active[:, latent] > 0).any()
    by_hand = x.flatten(0, 1) - active[:, latent, None] * edit.coder.W_dec[latent]
    torch.testing.assert_close(patched.flatten(0, 1), by_hand, rtol=1e-5, atol=1e-5)
