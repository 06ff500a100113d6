"""A refactoring must reproduce the committed loss curves: bit for bit on the kind of CPU that made them."""

import json
from functools import cache

import pytest
import torch

from tests.training import golden_run
from unweave.coders import trainable_architectures
from unweave.kernels.encode import cpu

_ELSEWHERE = 1e-4
_curve = cache(golden_run.curve)


@pytest.mark.parametrize("name", sorted(trainable_architectures()))
def test_two_hundred_steps_reproduce_the_committed_curve(name: str) -> None:
    path = golden_run.FOLDER / f"{name}.json"
    assert path.is_file(), f"run tools/make_golden.py {name}, look at the curve, and commit it"
    golden = json.loads(path.read_text())
    curve = _curve(name)
    assert curve.keys() == golden["curve"].keys()
    is_same_kind = golden["machine"] == golden_run.machine()
    for key, expected in golden["curve"].items():
        if is_same_kind:
            assert curve[key] == expected, key
        else:
            torch.testing.assert_close(
                torch.tensor(curve[key]), torch.tensor(expected), rtol=_ELSEWHERE, atol=_ELSEWHERE
            )


@pytest.mark.parametrize("name", ["topk", "batch_topk", "jumprelu"])
def test_the_rounded_proposal_trains_as_the_exact_product_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert golden_run.BATCH * golden_run.WIDTH * golden_run.N_LATENTS < cpu.WORTH, "else the other curve is rounded too"
    exact = _curve(name)
    monkeypatch.setattr(cpu, "WORTH", 0)
    for key, rounded in golden_run.curve(name).items():
        torch.testing.assert_close(torch.tensor(rounded), torch.tensor(exact[key]), rtol=_ELSEWHERE, atol=_ELSEWHERE)
