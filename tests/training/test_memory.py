"""While coders train, memory that a step frees stays with the process, and afterwards it goes back."""

import platform
import resource
import statistics
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unweave.coders import Wiring
from unweave.coders.topk import TopK, TopKConfig
from unweave.training.config import TrainingConfig
from unweave.training.loop import new_trainee, train
from unweave.training.memory import freed_memory_kept

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc")
BLOCK = 8 * 2**20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def test_a_step_asks_the_system_for_no_memory() -> None:
    width, n_latents = 256, 8192  # gradients of 8 MB, 2,048 pages each
    faults: list[int] = []

    def batches() -> Iterator[dict[str, Tensor]]:
        rows = torch.randn(256, width)
        while True:
            faults.append(_faults())
            yield {"here": rows}

    config = TrainingConfig(rows=20 * 256, batch=256, buffer=512)
    coder = TopK(TopKConfig(n_latents=n_latents, k=8), Wiring.sae(width, "here"))
    trainee = new_trainee("topk", coder, {"here": torch.randn(512, width)}, config)
    for _ in train([trainee], batches(), config):
        pass
    steps = [after - before for before, after in pairwise(faults[8:])]
    assert statistics.median(steps) < 200, steps


def test_blocks_are_kept_within_the_outermost_block_alone() -> None:
    def faults_of_a_block() -> int:
        before = _faults()
        torch.ones(BLOCK // 4)
        return _faults() - before

    with freed_memory_kept():
        with freed_memory_kept():
            for _ in range(10):  # until the heap has a free block that is large enough with its alignment
                faults_of_a_block()
            assert faults_of_a_block() < 100
        assert faults_of_a_block() < 100, "one of two users is left"
        kept = _resident()
    assert _resident() <= kept - BLOCK // 2, "what was kept goes back to the system"
