"""What is seen and changed inside attention, against the models' own eager attention and formulas worked by hand."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BartConfig, BartModel, T5Config, T5EncoderModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tests.models.families import FAMILIES, stir, tiny
from unweave.errors import UserError
from unweave.models.attention import POINTS, ROWS, Point, attention_modules, inside_attention
from unweave.models.inputs import forward, last_of, random_inputs

OPAQUE = {"gpt_neo", "gptj", "falcon", "falcon (new)", "falcon (sequential)", "bloom"}
SEEN_INTO = [family for family in FAMILIES if family not in OPAQUE]


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    before = dict(ALL_ATTENTION_FUNCTIONS)
    yield
    assert dict(ALL_ATTENTION_FUNCTIONS) == before
    assert not ALL_ATTENTION_FUNCTIONS._local_mapping


def _inputs(model: Any, n_tokens: int = 9) -> Tensor:
    drawn = [random_inputs(model, n_tokens, torch.Generator().manual_seed(seed)) for seed in (7, 63)]
    return torch.cat(drawn)


def _run(model: Any, inputs: Tensor | None = None) -> Tensor:
    return last_of(forward(model, _inputs(model) if inputs is None else inputs))


def _see(model: Any, inputs: Tensor | None = None) -> dict[tuple[str, Point], Tensor]:
    """All points of all attention modules in one pass."""
    seen: dict[tuple[str, Point], Tensor] = {}

    def keep(place: tuple[str, Point]) -> Callable[[Tensor], None]:
        return lambda x: seen.update({place: x})

    places = [(path, point) for path in attention_modules(model) for point in POINTS]
    with torch.no_grad(), inside_attention(model, {place: keep(place) for place in places}):
        _run(model, inputs)
    assert list(seen) == places
    return seen


def _eager(model: Any) -> list[Tensor]:
    """The patterns of all layers as the model itself gives them."""
    own = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        kind = {"pixel_values" if model.main_input_name == "pixel_values" else "input_ids": _inputs(model)}
        patterns = model(**kind, output_attentions=True).attentions
    model.set_attn_implementation(own)
    return list(patterns)


@pytest.mark.parametrize("family", SEEN_INTO)
def test_the_pattern_is_what_the_models_own_eager_attention_gives(family: str) -> None:
    model = tiny(family).model
    seen = _see(model)
    patterns = [x for (_, point), x in seen.items() if point == "pattern"]
    for pattern, own in zip(patterns, _eager(model), strict=True):
        torch.testing.assert_close(pattern, own, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("family", SEEN_INTO)
def test_looking_and_edits_that_change_nothing_leave_the_output_bit_for_bit(family: str) -> None:
    model = tiny(family).model
    clean = _run(model)
    places = [(path, point) for path in attention_modules(model) for point in POINTS]
    for change in (lambda x: None, lambda x: x, lambda x: x.clone()):
        with inside_attention(model, dict.fromkeys(places, change)):
            assert torch.equal(_run(model), clean)
    assert torch.equal(_run(model), clean)


@pytest.mark.parametrize("family", SEEN_INTO)
def test_each_point_has_an_effect(family: str) -> None:
    model = tiny(family).model
    clean = _run(model)
    for point in POINTS:
        with inside_attention(model, {(attention_modules(model)[0], point): lambda x: 0.5 * x + 1}):
            assert (_run(model) - clean).abs().max() > 1e-4, point


@pytest.mark.parametrize("family", SEEN_INTO)
def test_edits_of_scores_and_pattern_are_those_of_the_formula(family: str) -> None:
    """Twice the pattern is twice the values, and other scores are their own pattern."""
    model = tiny(family).model
    path = attention_modules(model)[0]
    with inside_attention(model, {(path, "v"): lambda v: 2 * v}):
        twice_values = _run(model)
    with inside_attention(model, {(path, "pattern"): lambda p: 2 * p}):
        torch.testing.assert_close(_run(model), twice_values, rtol=1e-4, atol=2e-5)
    noise = 0.3 * torch.randn_like(_see(model)[path, "scores"])
    other: list[Tensor] = []
    changes: dict[tuple[str, Point], Any] = {(path, "scores"): lambda s: s + noise, (path, "pattern"): other.append}
    with inside_attention(model, changes):
        by_scores = _run(model)
    with inside_attention(model, {(path, "pattern"): lambda p: other[0]}):
        torch.testing.assert_close(_run(model), by_scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", SEEN_INTO)
def test_values_mixed_by_the_pattern_enter_the_output_projection(family: str) -> None:
    lm = tiny(family)
    site, path = lm.sites.resolve("layers.1.attn.z"), attention_modules(lm.model)[1]
    (z,) = lm.capture(_inputs(lm.model), [site.name]).values()
    seen = _see(lm.model)
    pattern, v = seen[path, "pattern"], seen[path, "v"]
    n_heads, head_width = pattern.shape[1], z.shape[-1] // pattern.shape[1]
    serves = n_heads // (v.shape[-1] // head_width)
    for head in range(n_heads):
        columns = slice(head // serves * head_width, (head // serves + 1) * head_width)
        by_hand = pattern[:, head] @ v[..., columns]
        torch.testing.assert_close(z[..., head * head_width :][..., :head_width], by_hand, rtol=1e-4, atol=1e-5)


def test_queries_and_keys_of_a_llama_are_projected_and_turned() -> None:
    model: Any = tiny("llama").model
    seen, attention = _see(model), model.model.layers[0].self_attn
    x = model.model.layers[0].input_layernorm(model.model.embed_tokens(_inputs(model)))
    frequency = 10000.0 ** (-torch.arange(3) / 3)
    angle = torch.arange(9)[:, None] * frequency
    for point, weight in (("q", attention.q_proj.weight), ("k", attention.k_proj.weight)):
        heads = (x @ weight.T).unflatten(-1, (-1, 6))
        first, second = heads[..., :3], heads[..., 3:]
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        turned = torch.cat([first * cos - second * sin, second * cos + first * sin], -1).flatten(2)
        torch.testing.assert_close(seen["model.layers.0.self_attn", point], turned, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen["model.layers.0.self_attn", "v"], x @ attention.v_proj.weight.T)


def _score(seen: dict[tuple[str, Point], Tensor], path: str, n: int, head: int, to: int, at: int, width: int) -> float:
    """The product of one query with one key, heads of which serve two queries each."""
    q = seen[path, "q"][n, to, head * width : (head + 1) * width]
    k = seen[path, "k"][n, at, head // 2 * width : (head // 2 + 1) * width]
    return float(q @ k)


def test_scores_are_scaled_products_of_queries_and_keys_and_hidden_keys_have_the_least() -> None:
    model = tiny("llama").model
    path = "model.layers.1.self_attn"
    seen = _see(model)
    scores = seen[path, "scores"]
    for head, to, at in ((0, 3, 1), (1, 8, 0), (2, 5, 5), (3, 7, 2)):
        assert scores[1, head, to, at] == pytest.approx(_score(seen, path, 1, head, to, at, 6) / math.sqrt(6), abs=1e-5)
    later = torch.ones(9, 9, dtype=torch.bool).triu(1)
    assert (scores[..., later] < -1e38).all()
    assert (scores[..., ~later] > -100).all()
    torch.testing.assert_close(seen[path, "pattern"], scores.softmax(-1))


def test_scores_are_capped_and_far_keys_hidden_where_the_model_does_so() -> None:
    model = tiny("gemma2").model
    seen = _see(model)
    near, far = (seen[f"model.layers.{layer}.self_attn", "scores"] for layer in (0, 1))
    product = _score(seen, "model.layers.1.self_attn", 0, 3, 8, 2, 6) / math.sqrt(6)
    assert far[0, 3, 8, 2] == pytest.approx(50 * math.tanh(product / 50), abs=1e-5)
    assert (near[..., 8, :5] < -1e38).all()
    assert (near[..., 8, 5:] > -51).all()
    assert (far[..., 8, :] > -51).all()


def test_a_sink_takes_its_part_of_the_pattern() -> None:
    model: Any = tiny("gpt_oss").model
    path = "model.layers.1.self_attn"
    seen = _see(model)
    scores, sinks = seen[path, "scores"][1, :, 7, :8], model.get_submodule(path).sinks
    for head in range(4):
        total = scores[head].exp().sum() + sinks[head].exp()
        torch.testing.assert_close(seen[path, "pattern"][1, head, 7, :8], scores[head].exp() / total)


def test_a_position_bias_is_part_of_the_scores() -> None:
    shape = {"d_model": 24, "d_kv": 6, "d_ff": 36, "num_layers": 2, "num_heads": 4}
    model: Any = T5EncoderModel(T5Config(vocab_size=63, **shape)).eval().requires_grad_(False)
    stir(model)
    seen, clean = _see(model), _run(model)
    path = attention_modules(model)[0]
    bias = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    q, k = (seen[path, point][0].unflatten(-1, (4, 6)) for point in ("q", "k"))
    assert seen[path, "scores"][0, 2, 5, 5] == pytest.approx(float(q[5, 2] @ k[5, 2] + bias[0, 2]), abs=1e-4)
    assert torch.equal(_run(model), clean)
    own = _eager(model)
    torch.testing.assert_close(seen[path, "pattern"], own[0], rtol=1e-5, atol=5e-6)


def test_attention_to_another_sequence_and_hidden_padding_are_seen() -> None:
    shape = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = BartConfig(vocab_size=63, d_model=14, encoder_ffn_dim=20, decoder_ffn_dim=20, **shape, pad_token_id=0)
    model: Any = BartModel(config).eval().requires_grad_(False)
    stir(model)
    seen: list[Tensor] = []
    source, target = torch.randint(3, 63, (2, 9)), torch.randint(3, 63, (2, 5))
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[1, :4] = 0
    clean = model(input_ids=source, attention_mask=mask, decoder_input_ids=target)[0]
    with inside_attention(model, {("decoder.layers.0.encoder_attn", "pattern"): seen.append}):
        assert torch.equal(model(input_ids=source, attention_mask=mask, decoder_input_ids=target)[0], clean)
    assert seen[0].shape == (2, 2, 5, 9)
    assert (seen[0][1, ..., :4] == 0).all()
    assert (seen[0][0] > 0).all()


def test_an_inner_context_sees_what_the_outer_one_has_changed() -> None:
    model = tiny("gpt2").model
    path = attention_modules(model)[1]
    clean = _see(model)
    q, scores = clean[path, "q"], clean[path, "scores"]
    outer = {(path, "q"): lambda q: 2 * q, (path, "scores"): lambda s: s.tril() + 7}
    with inside_attention(model, outer):
        seen = _see(model)
        with inside_attention(model, {(path, "q"): lambda q: q + 1}):
            assert torch.equal(_see(model)[path, "q"], 2 * q + 1)
        assert torch.equal(seen[path, "q"], 2 * q)
        torch.testing.assert_close(seen[path, "scores"], 2 * scores.tril() + 7, rtol=1e-4, atol=1e-5)
    assert torch.equal(_see(model)[path, "q"], q)


def test_an_edit_reaches_the_layers_behind_it_and_no_other_model() -> None:
    model, other = tiny("gpt2").model, tiny("llama").model
    clean, clean_other = _see(model), _run(other)
    first, second = attention_modules(model)
    with inside_attention(model, {(first, "v"): torch.zeros_like}):
        edited = _see(model)
        assert torch.equal(_run(other), clean_other)
    assert torch.equal(edited[first, "pattern"], clean[first, "pattern"])
    assert not torch.equal(edited[second, "pattern"], clean[second, "pattern"])


def test_an_exception_is_passed_on_and_leaves_the_model_as_it_was() -> None:
    model = tiny("gpt2").model
    clean = _run(model)

    def fail(x: Tensor) -> Tensor:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"), inside_attention(model, {("transformer.h.0.attn", "k"): fail}):
        _run(model)
    assert torch.equal(_run(model), clean)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("family", ["llama", "gpt_oss"])
@pytest.mark.parametrize("point", POINTS)
def test_gradients_flow_through_what_is_shown_and_what_takes_its_place(family: str, point: Point) -> None:
    """Uphill the output changes as fast as its gradient says."""
    model = tiny(family).model
    path = attention_modules(model)[0]
    shown: list[Tensor] = []

    def trace(x: Tensor) -> Tensor:
        shown.append(x.detach().requires_grad_())
        return shown[0]

    with inside_attention(model, {(path, point): trace}):
        (gradient,) = torch.autograd.grad(_run(model).square().sum(), shown)
    ends, uphill = [], gradient / gradient.norm()
    for step in (3e-3, -3e-3):
        with inside_attention(model, {(path, point): lambda x, step=step: x + step * uphill}):
            ends.append(_run(model).square().sum())
    assert float((ends[0] - ends[1]) / 6e-3) == pytest.approx(float(gradient.norm()), rel=0.02)


def test_a_gradient_reaches_a_tensor_that_was_only_looked_at() -> None:
    model = tiny("llama").model
    first, second = attention_modules(model)
    for point in POINTS:
        shown: list[Tensor] = []
        changes: dict[tuple[str, Point], Any] = {
            (first, "v"): lambda v: v.detach().requires_grad_(),
            (second, point): shown.append,
        }
        with inside_attention(model, changes):
            (gradient,) = torch.autograd.grad(_run(model).square().sum(), shown)
        assert gradient.abs().max() > 0, point


@pytest.mark.parametrize("family", sorted(OPAQUE))
def test_a_model_that_works_out_its_attention_by_itself_says_so(family: str) -> None:
    model: Any = tiny(family).model
    assert attention_modules(model) == []
    (path, *_) = (name for name, _ in model.named_modules() if "attn" in name or "attention" in name)
    with (
        pytest.raises(UserError, match=f"this {model.config.model_type} model works out its attention by itself"),
        inside_attention(model, {(path, "q"): torch.zeros_like}),
    ):
        raise AssertionError("the block must not be entered")


def test_a_module_that_is_no_attention_is_refused() -> None:
    model = tiny("llama").model
    with (
        pytest.raises(UserError, match=r"model.layers.0.mlp is no attention .* such as model.layers.0.self_attn"),
        inside_attention(model, {("model.layers.0.mlp", "q"): torch.zeros_like}),
    ):
        raise AssertionError("the block must not be entered")


def test_scores_are_refused_under_an_implementation_that_never_has_them() -> None:
    model: Any = tiny("llama").model
    model.config._attn_implementation = "flex_attention"
    try:
        with (
            pytest.raises(UserError, match=r"scores of .* while the model runs 'flex_attention'.*'sdpa'"),
            inside_attention(model, {("model.layers.0.self_attn", "scores"): torch.zeros_like}),
        ):
            raise AssertionError("the block must not be entered")
    finally:
        model.config._attn_implementation = "sdpa"


def test_attention_that_is_more_than_a_softmax_has_rows_but_no_pattern() -> None:
    model = tiny("llama").model
    path = attention_modules(model)[0]
    sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def scaled(*args: Any, **kwargs: Any) -> Any:
        out, weights = sdpa(*args, **kwargs)
        return 1.01 * out, weights

    ALL_ATTENTION_FUNCTIONS["sdpa"] = scaled
    try:
        clean = _run(model)
        with inside_attention(model, dict.fromkeys([(path, point) for point in ROWS], lambda x: x.clone())):
            assert torch.equal(_run(model), clean)
        with (
            pytest.raises(UserError, match=rf"attention of {path} is more than a softmax"),
            inside_attention(model, {(path, "pattern"): lambda p: None}),
        ):
            _run(model)
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is scaled
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]


@pytest.mark.parametrize("family", ["gpt2", "gpt_oss", "gemma2"])
def test_a_model_in_half_precision_is_left_bit_for_bit(family: str) -> None:
    model = tiny(family).model.to(torch.bfloat16)
    try:
        clean = _run(model)
        places = [(path, point) for path in attention_modules(model) for point in POINTS]
        with inside_attention(model, dict.fromkeys(places, lambda x: x.clone())):
            assert torch.equal(_run(model), clean)
    finally:
        model.to(torch.float32)
