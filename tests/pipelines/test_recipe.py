"""Recipes: reading, overriding, and what a misspelt one says."""

from pathlib import Path

import pytest

from unweave.config import describe
from unweave.errors import UserError
from unweave.pipelines.recipe import build_job, builtin_recipes, configurable, read_job


def test_every_recipe_of_the_package_can_be_read() -> None:
    assert "demo" in builtin_recipes()
    for name in builtin_recipes():
        read_job(name, [])


def test_a_job_comes_back_equal_from_its_own_toml(tmp_path: Path) -> None:
    job = read_job("demo", ["coder.k=7", "text.separator=<|end|>", "seed=3"])
    path = tmp_path / "again.toml"
    path.write_text(job.to_toml())
    assert read_job(str(path), []) == job
    assert job.coder.k == 7
    assert job.recipe.text.separator == "<|end|>"


@pytest.mark.parametrize(
    "overrides",
    [
        ["site=layers.1.mlp_in", "target=layers.1.mlp_out", "skip=true"],
        ['site=["layers.0.resid_post", "layers.1.resid_post"]'],
        ["training.resample_at=[0.25, 0.5]"],
        ["coder.input_scale=whiten", "coder.centre=false", "coder.decoder_init_norm=0.5"],
    ],
)
def test_wirings_and_scales_come_back_equal_too(overrides: list[str], tmp_path: Path) -> None:
    job = read_job("demo", overrides)
    path = tmp_path / "again.toml"
    path.write_text(job.to_toml())
    assert read_job(str(path), []) == job
    assert job != read_job("demo", [])


def test_one_site_is_a_tuple_of_one_and_several_keep_their_order() -> None:
    assert read_job("demo", ["site=layers.0.mlp_in"]).recipe.sites == ("layers.0.mlp_in",)
    assert read_job("demo", ['site=["layers.2.mlp_in", "layers.0.mlp_in"]']).recipe.sites == (
        "layers.2.mlp_in",
        "layers.0.mlp_in",
    )


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["coder.kk=64"], "unknown setting 'coder.kk'; did you mean 'k'"),
        (["trainning.lr=1"], "unknown setting 'trainning'; did you mean 'training'"),
        (["training.batsch=1"], "unknown setting 'training.batsch'; did you mean 'batch'"),
        (["coder.k=4096"], "coder.k needs 0 < k <= n_latents, got k=4096 with n_latents=2048"),
        (["coder.k=0.0"], "coder.k needs 0 < k <= n_latents, got k=0 with n_latents=2048"),
        (['site=["a", "b"]', "target=c"], "a coder with a target reads one site, got 2; leave target empty"),
        (["site=[]"], "site must name at least one place in the model"),
        (["site=3"], "setting 'site': "),
        (["skip=true"], "skip=true needs a target"),
        (["targt=c"], "unknown setting 'targt'; did you mean 'target'"),
        (["coder.input_scale=unit_sprea"], "setting 'coder.input_scale'"),
        (["training.resample_at=[0.5, 2]"], "training.resample_at holds shares of the run"),
        (["coder.k=many"], "setting 'coder.k': "),
        (["coder.type=batchtopk"], "unknown coder type 'batchtopk'; did you mean 'batch_topk'"),
        (["coder.type=relu"], "unknown setting 'coder.k'"),
        (["training=3"], "setting 'training' is a section"),
        (["coder.k"], "written key=value"),
        (["model.sequences=0"], "model.sequences must be at least 1"),
        (["index.examples=0"], "index.examples must be at least 1"),
        (["coder.type=5"], "a recipe needs coder.type"),
        (["training.lr=-1"], "training.lr must be more than 0"),
    ],
)
def test_a_wrong_setting_is_named_with_what_to_write(overrides: list[str], says: str) -> None:
    with pytest.raises(UserError) as error:
        read_job("demo", overrides)
    assert says in str(error.value)


def test_a_missing_recipe_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="did you mean 'demo'"):
        read_job("dmeo", [])
    with pytest.raises(UserError, match=r"there is no file .missing\.toml."):
        read_job("missing.toml", [])


def test_a_broken_toml_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("site = [")
    with pytest.raises(UserError, match="is not valid TOML"):
        read_job(str(path), [])


def test_a_recipe_without_a_coder_type_lists_the_types() -> None:
    with pytest.raises(UserError, match=r"a recipe needs coder\.type, one of: .*batch_topk, .*relu"):
        build_job({"coder": {"k": 3}})


def test_every_setting_has_a_sentence_that_says_what_it_does() -> None:
    for name, config in configurable().items():
        for field in describe(config):
            assert len(field.doc) > 10, f"{name}.{field.name}"
