"""Processes that train one coder together do what one process does: the same figures and weights to rounding."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.training import ranks_worker
from unweave.coders import SparseCoder

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, Tensor]]:
    """What became of every case on 2 or 4 processes, for every way to part latents and rows."""
    return cache(lambda count: _train_together(count, tmp_path_factory.mktemp("ranks") / "outcome.safetensors"))


def _train_together(count: int, file: Path) -> dict[str, Tensor]:
    parts = [str(n) for n in (1, 2, 4) if count % n == 0]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command += ["-m", "tests.training.ranks_worker", str(file), *parts]
    quiet = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return load_file(file)


@cache
def alone(name: str) -> tuple[dict[str, list[float]], SparseCoder]:
    return ranks_worker.outcome(ranks_worker.new_case(name), ranks_worker.batches())


@pytest.mark.parametrize(
    ("count", "name"),
    [(2, name) for name in ranks_worker.CASES]
    + [pytest.param(4, name, marks=pytest.mark.slow) for name in ranks_worker.FEW],
)
def test_the_same_as_one_process(count: int, name: str, together: Callable[[int], dict[str, Tensor]]) -> None:
    figures, coder = alone(name)
    outcome = together(count)
    all_parts = sorted({key.split("/")[0] for key in outcome})
    assert all_parts == (["1", "2"] if count == 2 else ["1", "2", "4"])
    for parts in all_parts:
        prefix = f"{parts}/{name}/"
        got = {key.removeprefix(prefix): x for key, x in outcome.items() if key.startswith(prefix)}
        assert {key for key in got if key.startswith("figures/")} == {f"figures/{key}" for key in figures}
        for key, values in figures.items():
            torch.testing.assert_close(
                got[f"figures/{key}"], torch.tensor(values).double(), rtol=1e-5, atol=1e-6, msg=f"{parts}, {key}"
            )
        for key, tensor in coder.state_dict().items():
            torch.testing.assert_close(got[f"weights/{key}"], tensor, rtol=1e-8, atol=1e-9, msg=f"{parts}, {key}")
