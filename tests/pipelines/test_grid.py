"""Which coders a recipe with lists asks for."""

from typing import Any

import pytest

from unweave.errors import UserError
from unweave.pipelines.recipe import Plan, build_plan, read_plan


def _plan(**coder: Any) -> Plan:
    return build_plan({"coder": {"type": "topk", **coder}})


def test_a_recipe_without_lists_asks_for_one_coder() -> None:
    plan = read_plan("demo", [])
    assert list(plan.jobs) == ["batch_topk"]
    assert not plan.is_grid


def test_a_list_at_a_setting_that_takes_one_value_makes_a_coder_of_each() -> None:
    plan = build_plan({"coder": {"type": "topk", "k": [16, 32, 64]}, "seed": [0, 1], "training": {"lr": [1e-3, 2e-3]}})
    assert len(plan.jobs) == 12
    assert list(plan.jobs)[:2] == ["seed0-k16-lr0.001", "seed0-k16-lr0.002"]
    job = plan.jobs["seed1-k64-lr0.002"]
    assert (job.recipe.seed, job.recipe.training.lr) == (1, 2e-3)
    assert vars(job.coder)["k"] == 64


def test_a_list_at_a_setting_that_takes_a_list_is_one_value() -> None:
    plan = build_plan({"site": ["layers.0.mlp_in", "layers.1.mlp_in"], "coder": {"type": "topk"}})
    assert len(plan.jobs) == 1
    assert plan.recipe.sites == ("layers.0.mlp_in", "layers.1.mlp_in")
    assert len(build_plan({"coder": {"type": "matryoshka", "prefixes": [0.1, 1.0]}}).jobs) == 1


def test_the_section_sweep_lists_values_of_any_setting() -> None:
    plan = read_plan("demo", ['sweep.site=["layers.0.resid_post", ["layers.1.mlp_in", "layers.2.mlp_in"]]'])
    sites = {name: job.recipe.sites for name, job in plan.jobs.items()}
    assert sites == {
        "layers.0.resid_post": ("layers.0.resid_post",),
        "layers.1.mlp_in+layers.2.mlp_in": ("layers.1.mlp_in", "layers.2.mlp_in"),
    }
    assert list(build_plan({"coder": {"type": "topk"}, "sweep": {"coder": {"k": [8, 9]}}}).jobs) == ["k8", "k9"]


def test_settings_that_only_some_architectures_have_go_to_those() -> None:
    plan = _plan(type=["topk", "jumprelu"], k=[8, 9], sparsity_coefficient=[1e-3, 1e-2], n_latents=100)
    names = ["topk-k8", "topk-k9", "jumprelu-sparsity_coefficient0.001", "jumprelu-sparsity_coefficient0.01"]
    assert list(plan.jobs) == names
    assert all(job.coder.n_latents == 100 for job in plan.jobs.values())


def test_a_grid_is_read_back_from_its_toml(tmp_path: Any) -> None:
    plan = read_plan("demo", ["coder.k=[16, 32]", "seed=[0, 1]"])
    path = tmp_path / "grid.toml"
    path.write_text(plan.to_toml())
    assert read_plan(str(path), []).jobs == plan.jobs


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"rows": [100, 200]}}, "'training.rows' has several values, but coders of one pass share it"),
        ({"text": {"source": ["a", "b"]}}, "'text.source' has several values"),
        ({"model": {"dtype": ["float32", "bfloat16"]}}, "'model.dtype' has several values"),
        ({"sweep": {"packing.context": [16, 32]}}, "'packing.context' has several values"),
        ({"seed": []}, "'seed' is an empty list; give at least one value"),
        ({"seed": [1, 1]}, "the same coder twice"),
        ({"sweep": {"seed": 3}}, "sweep.seed needs a list of values, got 3"),
        ({"sweep": 3}, "sweep is a section with lists of values, got 3"),
        ({"coder": {"k": 3}}, "a recipe needs coder.type"),
        (
            {"coder": {"type": "temporal"}},
            "type temporal can be loaded and measured, not trained; train one of: .*topk",
        ),
        ({"coder": {"type": ["topk", "topq"]}}, "topq"),
        ({"coder": {"type": "topk", "kk": [3, 4]}}, "unknown setting 'coder.kk'"),
        ({"coder": {"type": "topk", "k": [3, 40000]}}, "coder.k needs 0 < k <= n_latents, got k=40000"),
    ],
)
def test_what_makes_no_grid_is_refused_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_plan({"coder": {"type": "topk"}} | values)
    assert "\n" not in str(caught.value)
