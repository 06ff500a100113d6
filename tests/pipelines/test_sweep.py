"""Many coders in one pass: each ends as it would alone, and the sweep's page, picture and table hold their figures."""

import csv
from pathlib import Path

import pytest
import torch

from unweave.errors import UserError
from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import build_plan, read_job
from unweave.pipelines.sweep import run_sweep
from unweave.pipelines.train import run_job
from unweave.storage.run_folder import Run

QUIET = Watch(quiet=True)
NAMES = [
    "batch_topk-layers.1.resid_post-seed0-k5",
    "batch_topk-layers.1.resid_post-seed0-k9",
    "batch_topk-layers.1.resid_post-seed1-k5",
    "batch_topk-layers.1.resid_post-seed1-k9",
    "batch_topk-layers.2.mlp_out-seed0-k5",
    "batch_topk-layers.2.mlp_out-seed0-k9",
    "batch_topk-layers.2.mlp_out-seed1-k5",
    "batch_topk-layers.2.mlp_out-seed1-k9",
    "relu-layers.1.resid_post-seed0",
    "relu-layers.1.resid_post-seed1",
    "relu-layers.2.mlp_out-seed0",
    "relu-layers.2.mlp_out-seed1",
]


@pytest.fixture(scope="module")
def folder(model_folders: dict[str, Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.pipelines.conftest import small_recipe

    recipe = small_recipe(model_folders["llama"], text_file)
    recipe["coder"] = {"type": ["batch_topk", "relu"], "n_latents": 63, "k": [5, 9], "k_aux": 12}
    recipe |= {"seed": [0, 1], "sweep": {"site": ["layers.1.resid_post", "layers.2.mlp_out"]}}
    out = tmp_path_factory.mktemp("sweeps") / "small"
    run_sweep(build_plan(recipe), out, QUIET)
    return out


def test_every_point_of_the_grid_has_a_run_of_its_own(folder: Path) -> None:
    assert sorted(path.name for path in (folder / "coders").iterdir()) == sorted(NAMES)
    for name in NAMES:
        run = Run(folder / "coders" / name)
        assert run.coder.site in name
        assert run.results["n_tokens"] > 1000
        assert (run.path / "report" / "index.html").is_file()


@pytest.mark.parametrize("name", [NAMES[3], NAMES[10]])
def test_a_coder_of_a_sweep_is_the_one_that_its_own_recipe_trains_alone(
    folder: Path, tmp_path: Path, name: str
) -> None:
    swept = Run(folder / "coders" / name)
    alone = run_job(read_job(str(swept.path / "config.toml"), []), tmp_path / "alone", QUIET)
    ours, theirs = swept.coder.state_dict(), alone.coder.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert (swept.path / "metrics.jsonl").read_bytes() == (alone.path / "metrics.jsonl").read_bytes()
    assert swept.results == alone.results


def test_the_table_holds_every_figure_of_every_coder(folder: Path) -> None:
    with (folder / "report" / "sweep.csv").open() as file:
        lines = {line["coder"]: line for line in csv.DictReader(file)}
    assert list(lines) == NAMES
    line = lines[NAMES[6]]
    assert (line["line"], line["setting"]) == ("batch_topk, layers.2.mlp_out", "k=5")
    results = Run(folder / "coders" / NAMES[6]).results
    assert float(line["l0"]) == results["l0"]
    assert float(line["kl"]) == results["kl"]


def test_the_page_links_to_every_report_and_the_picture_is_there(folder: Path) -> None:
    page = (folder / "report" / "index.html").read_text()
    for name in NAMES:
        link = f"../coders/{name}/report/index.html"
        assert f'href="{link}"' in page
        assert (folder / "report" / link).is_file()
    assert (folder / "report" / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_a_recipe_for_one_coder_is_no_sweep(recipe: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a sweep needs several coders"):
        run_sweep(build_plan(recipe), tmp_path / "one", QUIET)
