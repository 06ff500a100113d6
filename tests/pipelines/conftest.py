"""A small job on a tiny random model and a text file, run once for all tests of this folder."""

from pathlib import Path

import pytest

from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import build_job
from unweave.pipelines.train import run_job
from unweave.storage.run_folder import Run


def small_recipe(model: Path, text: Path) -> dict:
    return {
        "site": "layers.1.resid_post",
        "model": {"name": str(model), "device": "cpu", "sequences": 4},
        "text": {"source": str(text)},
        "packing": {"context": 32},
        "coder": {"type": "batch_topk", "n_latents": 63, "k": 7, "k_aux": 12},
        "training": {"rows": 3000, "batch": 100, "buffer": 1000, "log_every": 5, "dead_window": 1000},
        "evaluation": {"tokens": 1500, "splice_tokens": 600},
        "index": {"tokens": 1500, "examples": 3, "promoted": 5},
    }


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory, reader: str) -> Path:
    path = tmp_path_factory.mktemp("text") / "weaver.txt"
    path.write_text("".join(f"Chapter {i}.\n{reader}" for i in range(150)))
    return path


@pytest.fixture
def recipe(model_folders: dict[str, Path], text_file: Path) -> dict:
    return small_recipe(model_folders["llama"], text_file)


@pytest.fixture(scope="session")
def run(model_folders: dict[str, Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "small"
    return run_job(build_job(small_recipe(model_folders["llama"], text_file)), out, Watch(quiet=True))
