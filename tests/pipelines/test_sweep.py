"""Many coders in one pass: each ends as it would alone, and the sweep's page, picture and table hold their figures."""

import csv
from pathlib import Path

import pytest
import torch

from unweave.errors import UserError
from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import build_plan, read_job
from unweave.pipelines.sweep import read_sweep, run_sweep
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
    recipe["training"] |= {"rows": 2000}
    recipe["evaluation"] |= {"tokens": 1100, "splice_tokens": 300}
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


@pytest.fixture(scope="module")
def chained(model_folders: dict[str, Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two widths at two layers, with two seeds each."""
    from tests.pipelines.conftest import small_recipe

    recipe = small_recipe(model_folders["llama"], text_file)
    recipe["coder"] = {"type": "topk", "n_latents": [20, 40], "k": 5, "k_aux": 12}
    recipe["training"] |= {"rows": 1000}
    recipe["evaluation"] |= {"tokens": 600, "splice_tokens": 200}
    recipe |= {"seed": [0, 1], "sweep": {"site": ["layers.0.resid_post", "layers.1.resid_post"]}}
    out = tmp_path_factory.mktemp("sweeps") / "chained"
    run_sweep(build_plan(recipe), out, QUIET)
    return out


def test_chains_take_seeds_in_turn_and_are_on_the_page_and_in_its_twin(chained: Path) -> None:
    said = read_sweep(chained)
    widths = [chain["coders"] for chain in said["families"]]
    assert len(widths) == 4, "at each of two layers, starting with each of two seeds"
    assert widths[0] == ["layers.0.resid_post-seed0-n_latents20", "layers.0.resid_post-seed1-n_latents40"]
    assert all(chain["sizes"] == [20, 40] for chain in said["families"])
    layers = [(chain["sites"], chain["coders"]) for chain in said["tracks"]]
    assert layers[1] == (
        ["layers.0.resid_post", "layers.1.resid_post"],
        ["layers.0.resid_post-seed1-n_latents20", "layers.1.resid_post-seed0-n_latents20"],
    )
    assert len(layers) == 4
    page = (chained / "report" / "index.html").read_text()
    for heading in (
        "Line by line",
        "What latents split into",
        "Latents through the layers",
        "What this sweep cannot say",
    ):
        assert f">{heading}</h2>" in page
    assert all(asset in page for asset in ("assets/sweep.css", "assets/sweep.js"))


def test_a_family_is_that_of_the_decoders_of_its_coders(chained: Path) -> None:
    chain = read_sweep(chained)["families"][0]
    narrow, wide = (torch.nn.functional.normalize(Run(chained / "coders" / n).coder.W_dec) for n in chain["coders"])
    has_parent = (wide @ narrow.T).amax(1) > 0.6
    assert chain["figures"][0]["family_orphans"] == pytest.approx(1 - has_parent.double().mean().item())


def test_a_sweep_of_one_width_says_why_it_has_no_law_and_no_families(folder: Path) -> None:
    said = read_sweep(folder)
    assert said["laws"] == said["families"] == said["tracks"] == []
    law, *others = said["notes"]
    assert law.startswith(
        "No law of batch_topk, layers.1.resid_post; batch_topk, layers.2.mlp_out: a scaling law needs 3 widths"
    )
    assert [note.partition(":")[0] for note in others[-2:]] == ["No families of latents", "No latents through layers"]
    assert set(said["frontiers"]["figures"]) == {"explained_variance", "loss_recovered_mean"}
