"""What is seen and changed inside mixtures of experts, against transformers' own experts and formulas by hand."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from tests.models.families import stir, tiny
from unweave.errors import UserError
from unweave.models.experts import Mixture, find_mixture, inside_experts
from unweave.models.inputs import forward, random_inputs

_SHAPE = {"vocab_size": 63, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
_SHAPE |= {"num_key_value_heads": 2, "num_experts_per_tok": 3, "intermediate_size": 20}
MORE = {
    "qwen2_moe": ("Qwen2Moe", {"num_experts": 7, "moe_intermediate_size": 12, "shared_expert_intermediate_size": 14}),
    "olmoe": ("Olmoe", {"num_experts": 7}),
    "granitemoe": ("GraniteMoe", {"num_local_experts": 7}),
    "deepseek_v3": (
        "DeepseekV3",
        {
            "n_routed_experts": 7,
            "moe_intermediate_size": 12,
            "num_key_value_heads": 4,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
        }
        | {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 6},
    ),
}
FAMILIES = ["mixtral", "qwen3_moe", "gpt_oss", *MORE]
POINTS = ("pre", "pre_linear", "post", "out")


@functools.cache
def _tiny(family: str) -> Any:
    if family not in MORE:
        return tiny(family).model
    name, settings = MORE[family]
    config = getattr(transformers, f"{name}Config")(**{**_SHAPE, **settings})
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(100)
        model = getattr(transformers, f"{name}ForCausalLM")(config).eval().requires_grad_(False)
        stir(model)
    return model


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each tiny model in turn; fails where a hook is left behind."""
    model = _tiny(request.param)
    yield model
    hooks = [hook for m in model.modules() for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    assert all(hook.__module__.startswith("transformers.") for hook in hooks)


def _path(model: Any) -> str:
    """Of the mixture in the second block; the first is dense in some families."""
    return f"model.layers.1.{'mlp' if hasattr(model.model.layers[1], 'mlp') else 'block_sparse_moe'}"


def _mixture(model: Any) -> Mixture:
    mixture = find_mixture(model.get_submodule(_path(model)))
    assert mixture is not None
    return mixture


def _experts(model: Any) -> Any:
    return model.get_submodule(f"{_path(model)}.{_mixture(model).experts}")


def _run(model: Any) -> Tensor:
    drawn = [random_inputs(model, 9, torch.Generator().manual_seed(seed)) for seed in (7, 63)]
    with torch.set_grad_enabled(torch.is_grad_enabled()):
        return forward(model, torch.cat(drawn)).logits


def _see(model: Any) -> dict[Any, Tensor]:
    """All places in one pass, and what the experts module read and wrote."""
    mixture, seen = _mixture(model), {}

    def keep(place: Any) -> Callable[[Tensor], None]:
        return lambda x: seen.update({place: x})

    def keep_edges(_: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
        seen.update({"x": args[0], "chosen": args[1], "weights": args[2], "y": output})

    handle = _experts(model).register_forward_hook(keep_edges)
    try:
        with torch.no_grad(), inside_experts(model, _path(model), {place: keep(place) for place in mixture.places}):
            _run(model)
    finally:
        handle.remove()
    return seen


def test_what_all_experts_add_is_what_the_mixture_gives(model: Any) -> None:
    seen, mixture = _see(model), _mixture(model)
    total = sum(seen[f"{i}.out"].flatten(0, 1) for i in range(mixture.n_experts))
    torch.testing.assert_close(total, seen["y"], rtol=1e-5, atol=1e-6)
    assert seen["y"].abs().max() > 0.01


def test_the_routing_is_the_weights_that_experts_are_given(model: Any) -> None:
    seen, k = _see(model), model.config.num_experts_per_tok
    routing = seen["routing"].flatten(0, 1)
    assert seen["routing"].shape == (2, 9, _mixture(model).n_experts)
    assert ((routing != 0).sum(-1) == k).all()
    for token in range(18):
        for slot in range(k):
            assert routing[token, seen["chosen"][token, slot]] == seen["weights"][token, slot]


def test_rows_of_tokens_that_went_elsewhere_are_zero(model: Any) -> None:
    seen, mixture = _see(model), _mixture(model)
    for i in range(mixture.n_experts):
        for point in mixture.points:
            came = seen[f"{i}.{point}"].abs().amax(-1) > 0
            assert torch.equal(came, seen["routing"][..., i] != 0), (i, point)
    assert not all((seen["routing"][..., i] != 0).all() for i in range(mixture.n_experts))


def test_the_activations_of_an_expert_are_those_of_its_weights(model: Any) -> None:
    seen, experts = _see(model), _experts(model)
    expert, token = int(seen["chosen"][5, 0]), 5
    x = seen["x"][token]
    pre, up, post, out = (seen[f"{expert}.{point}"].flatten(0, 1)[token] for point in POINTS)
    if model.config.model_type == "gpt_oss":
        both = x @ experts.gate_up_proj[expert] + experts.gate_up_proj_bias[expert]
        gate, linear = both[0::2], both[1::2]
        act = gate * torch.sigmoid(1.702 * gate) * (linear + 1)
        down = act @ experts.down_proj[expert] + experts.down_proj_bias[expert]
        assert gate.max() < 7 and linear.abs().max() < 7
    else:
        half = experts.gate_up_proj.shape[1] // 2
        gate, linear = experts.gate_up_proj[expert, :half] @ x, experts.gate_up_proj[expert, half:] @ x
        act = gate * torch.sigmoid(gate) * linear
        down = experts.down_proj[expert] @ act
    for seen_here, by_hand in ((pre, gate), (up, linear), (post, act), (out, down * seen["weights"][token, 0])):
        torch.testing.assert_close(seen_here, by_hand, rtol=1e-4, atol=1e-5)


def test_the_routers_logits_say_which_experts_are_chosen(model: Any) -> None:
    """All but DeepSeek, which adds a correction that is zero here, take those with the largest logits."""
    seen = _see(model)
    largest = seen["router"].flatten(0, 1).topk(model.config.num_experts_per_tok).indices
    assert torch.equal(largest.sort(-1).values, seen["chosen"].sort(-1).values)
    router = model.get_submodule(f"{_path(model)}.{_mixture(model).router}")
    by_hand = seen["x"] @ router.weight.T + getattr(router, "bias", torch.zeros(()))
    torch.testing.assert_close(seen["router"].flatten(0, 1), by_hand.float(), rtol=1e-4, atol=1e-5)


def test_looking_and_edits_that_change_nothing_leave_the_logits_bit_for_bit(model: Any) -> None:
    clean, mixture = _run(model), _mixture(model)
    with inside_experts(model, _path(model), dict.fromkeys(mixture.places, lambda x: None)):
        assert torch.equal(_run(model), clean)
    with inside_experts(model, _path(model), dict.fromkeys(mixture.places[1:], lambda x: x.clone())):
        assert torch.equal(_run(model), clean)
    assert torch.equal(_run(model), clean)


def test_each_place_of_an_expert_has_an_effect(model: Any) -> None:
    clean = _run(model)
    expert = int(_see(model)["chosen"][0, 0])
    for point in POINTS:
        with inside_experts(model, _path(model), {f"{expert}.{point}": lambda x: 0.5 * x + 1}):
            assert (_run(model) - clean).abs().max() > 1e-4, point


def test_an_expert_that_adds_nothing_is_one_without_weight(model: Any) -> None:
    mixture = _mixture(model)
    expert = int(_see(model)["chosen"][0, 0])

    def without(routing: Tensor) -> Tensor:
        return routing * (torch.arange(mixture.n_experts) != expert)

    with inside_experts(model, _path(model), {"routing": without}):
        no_weight = _run(model)
    with inside_experts(model, _path(model), {f"{expert}.out": torch.zeros_like}):
        torch.testing.assert_close(_run(model), no_weight, rtol=1e-4, atol=1e-5)


def test_tokens_go_where_a_new_routing_sends_them(model: Any) -> None:
    mixture = _mixture(model)
    k, seen = model.config.num_experts_per_tok, {}
    new = torch.rand(2, 9, mixture.n_experts)
    places: dict[str, Any] = {f"{i}.out": lambda x, i=i: seen.update({i: x}) for i in range(mixture.n_experts)}

    def keep(module: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
        seen["chosen"], seen["weights"] = args[1:]

    with inside_experts(model, _path(model), {"routing": lambda routing: new, **places}):
        handle = _experts(model).register_forward_hook(keep)
        edited = _run(model)
        handle.remove()
    values, indices = new.flatten(0, 1).sort(-1, descending=True)
    assert torch.equal(seen["chosen"], indices[:, :k])
    assert torch.equal(seen["weights"], values[:, :k])
    for i in range(mixture.n_experts):
        assert torch.equal(seen[i].flatten(0, 1).abs().amax(-1) > 0, (indices[:, :k] == i).any(-1))
    assert (edited - _run(model)).abs().max() > 1e-3


def test_an_edit_of_one_token_leaves_the_routing_of_others(model: Any) -> None:
    clean = _run(model)

    def turn_one(routing: Tensor) -> Tensor:
        routing = routing.clone()
        routing[1, 6] = routing[1, 6].flip(-1)
        return routing

    with inside_experts(model, _path(model), {"routing": turn_one}):
        edited = _run(model)
    others = torch.ones(2, 9, dtype=torch.bool)
    others[1, 6] = False
    torch.testing.assert_close(edited[others], clean[others], rtol=1e-5, atol=1e-5)
    assert (edited[1, 6] - clean[1, 6]).abs().max() > 1e-4


def test_experts_are_added_up_in_the_order_in_which_they_were_chosen(model: Any) -> None:
    """Whatever order that is, so that an edit which changes nothing is exact."""
    router = model.get_submodule(f"{_path(model)}.{_mixture(model).router}")
    turned = router.register_forward_hook(lambda _, args, out: (out[0], out[1].flip(-1), out[2].flip(-1)))
    try:
        clean = _run(model)
        with inside_experts(model, _path(model), {"routing": lambda routing: routing.clone()}):
            assert torch.equal(_run(model), clean)
    finally:
        turned.remove()


def test_a_hook_on_the_experts_sees_what_was_changed_within_them(model: Any) -> None:
    seen: list[Tensor] = []
    handle = _experts(model).register_forward_hook(lambda _, args, output: seen.append(output))
    expert = int(_see(model)["chosen"][0, 0])
    with inside_experts(model, _path(model), {f"{expert}.out": lambda out: out + 1}):
        _run(model)
    handle.remove()
    came = _see(model)["routing"].flatten(0, 1)[:, expert, None] != 0
    torch.testing.assert_close(seen[-1], seen[0] + came.float(), rtol=1e-5, atol=1e-5)


def test_logits_of_a_router_are_not_to_be_edited(model: Any) -> None:
    with (
        pytest.raises(
            UserError, match=r"edit of the logits of model\.layers\.1\..* would change nothing.*mlp\.routing"
        ),
        inside_experts(model, _path(model), {"router": lambda logits: logits + 1}),
    ):
        _run(model)


def test_an_inner_context_sees_what_the_outer_one_has_changed(model: Any) -> None:
    clean = _see(model)
    expert = int(clean["chosen"][0, 0])
    outer: dict[str, Any] = {f"{expert}.pre": torch.zeros_like, "routing": lambda routing: 2 * routing}
    with inside_experts(model, _path(model), outer):
        seen = _see(model)
    assert torch.equal(seen["routing"], 2 * clean["routing"])
    assert (seen[f"{expert}.pre"] == 0).all()
    assert torch.equal(seen[f"{expert}.pre_linear"], clean[f"{expert}.pre_linear"])
    assert (seen[f"{expert}.post"] == 0).all()
    torch.testing.assert_close(seen["y"], 2 * (clean["y"] - clean[f"{expert}.out"].flatten(0, 1)) + _rest(seen, expert))
    assert torch.equal(_see(model)[f"{expert}.out"], clean[f"{expert}.out"])


def _rest(seen: dict[Any, Tensor], expert: int) -> Tensor:
    """What an expert adds where its hidden activations are zero: nothing, or the bias behind them."""
    return seen[f"{expert}.out"].flatten(0, 1)


def test_the_order_of_edits_is_that_of_contexts(model: Any) -> None:
    expert = int(_see(model)["chosen"][0, 0])
    with inside_experts(model, _path(model), {f"{expert}.post": lambda x: 2 * x}):
        before = _see(model)[f"{expert}.post"]
        with inside_experts(model, _path(model), {f"{expert}.post": lambda x: x + 1}):
            after = _see(model)[f"{expert}.post"]
    came = before.abs().amax(-1) > 0
    torch.testing.assert_close(after[came], before[came] + 1)


@pytest.mark.parametrize("place", ["routing", "pre", "pre_linear", "post", "out"])
def test_gradients_flow_through_what_takes_a_places_place(model: Any, place: Any) -> None:
    """Uphill the logits change as fast as their gradient says."""
    key = place if place == "routing" else f"{int(_see(model)['chosen'][0, 0])}.{place}"
    shown: list[Tensor] = []

    def trace(x: Tensor) -> Tensor:
        shown.append(x.detach().requires_grad_())
        return shown[0]

    with inside_experts(model, _path(model), {key: trace}):
        (gradient,) = torch.autograd.grad(_run(model).square().sum(), shown)
    ends, uphill = [], gradient / gradient.norm()
    for step in (3e-3, -3e-3):
        with inside_experts(model, _path(model), {key: lambda x, step=step: x + step * uphill}):
            ends.append(_run(model).square().sum())
    assert float((ends[0] - ends[1]) / 6e-3) == pytest.approx(float(gradient.norm()), rel=0.02)


def test_a_gradient_reaches_a_tensor_that_was_only_looked_at(model: Any) -> None:
    expert = int(_see(model)["chosen"][0, 0])
    norm = model.model.layers[1].input_layernorm
    handle = norm.register_forward_hook(lambda _, args, x: x.detach().requires_grad_())
    try:
        for place in ("routing", *(f"{expert}.{point}" for point in POINTS)):
            shown: list[Tensor] = []
            with inside_experts(model, _path(model), {place: shown.append}):
                (gradient,) = torch.autograd.grad(_run(model).square().sum(), shown)
            assert gradient.abs().max() > 0, place
    finally:
        handle.remove()


def test_an_exception_is_passed_on_and_leaves_the_model_as_it_was(model: Any) -> None:
    clean = _run(model)

    def fail(x: Tensor) -> Tensor:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"), inside_experts(model, _path(model), {"0.post": fail}):
        _run(model)
    assert torch.equal(_run(model), clean)


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_it_is_the_same_however_the_model_runs_its_experts(model: Any, implementation: str) -> None:
    mixture, usual = _mixture(model), _see(model)
    own = model.config._experts_implementation
    model.set_experts_implementation(implementation)
    try:
        clean, seen = _run(model), _see(model)
        with inside_experts(model, _path(model), dict.fromkeys(mixture.places[1:], lambda x: x.clone())):
            assert torch.equal(_run(model), clean)
    finally:
        model.set_experts_implementation(own)
    for place in mixture.places:
        torch.testing.assert_close(seen[place], usual[place], rtol=1e-5, atol=5e-6)


def test_a_dense_mlp_is_no_mixture() -> None:
    for family, path in (("qwen3_moe", "model.layers.0.mlp"), ("deepseek_v3", "model.layers.0.mlp")):
        assert find_mixture(_tiny(family).get_submodule(path)) is None
    assert find_mixture(tiny("gpt2").model.get_submodule("transformer.h.0.mlp")) is None
    assert find_mixture(tiny("llama").model.get_submodule("model.layers.0.mlp")) is None


def _block_without_gate() -> Any:
    settings = {"hidden_size": 16, "n_routed_experts": 7, "num_experts_per_tok": 3, "moe_intermediate_size": 12}
    settings |= {"n_group": 1, "topk_group": 1, "moe_shared_expert_intermediate_size": 8}
    family = pytest.importorskip("transformers.models.nemotron_h.modeling_nemotron_h")
    return family.NemotronHMoE(transformers.NemotronHConfig(**settings))


def _block_with_norms() -> Any:
    settings = {"hidden_size": 16, "moe_hidden_size": 16, "num_local_experts": 7, "num_experts_per_tok": 3}
    settings |= {"moe_intermediate_size": 12, "num_attention_heads": 4, "num_key_value_heads": 2}
    family = pytest.importorskip("transformers.models.muse_spark.modeling_muse_spark")
    return family.MuseSparkMoE(transformers.MuseSparkTextConfig(**settings))


@pytest.mark.parametrize("build", [_block_without_gate, _block_with_norms])
def test_experts_without_a_gate_or_with_a_norm_add_up_too(build: Callable[[], Any]) -> None:
    model: Any = torch.nn.ModuleDict({"mlp": build()}).eval().requires_grad_(False)
    stir(model)
    mixture, outs, total = find_mixture(model["mlp"]), [], []
    assert mixture is not None
    assert mixture.points == (("pre", "post", "out") if build is _block_without_gate else POINTS)
    x = torch.randn(2, 9, 16)
    clean = model["mlp"](x)
    handle = model["mlp"].experts.register_forward_hook(lambda _, args, y: total.append(y))
    with inside_experts(model, "mlp", {f"{i}.out": outs.append for i in range(7)}):
        assert torch.equal(model["mlp"](x), clean)
    handle.remove()
    torch.testing.assert_close(sum(outs).flatten(0, 1), total[0], rtol=1e-5, atol=1e-6)
    assert (clean - model["mlp"](x + 1)).abs().max() > 1e-3
