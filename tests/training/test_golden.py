"""A refactoring must reproduce the committed loss curves: bit for bit on the kinds of CPU that made them."""

import json
from functools import cache

import pytest
import torch

from tests.training import golden_run
from unweave.coders import trainable_architectures
from unweave.kernels.encode import cpu

_ELSEWHERE = 1e-4
_APART = 4
"""Another kind of CPU may differ so many times as much as those that are known differ from each other."""
_curve = cache(golden_run.curve)


@pytest.mark.parametrize("name", sorted(trainable_architectures()))
def test_two_hundred_steps_reproduce_the_committed_curve(name: str) -> None:
    path = golden_run.FOLDER / f"{name}.json"
    assert path.is_file(), f"run tools/make_golden.py {name}, look at the curve, and commit it"
    golden = json.loads(path.read_text())["curves"]
    curve, own = _curve(name), golden.get(golden_run.machine())
    if own is not None:
        assert curve == own
        return
    first, *others = golden.values()
    assert curve.keys() == first.keys()
    for key, expected in first.items():
        # kinds of CPU come apart where a rounded sum decides whether a latent fires; those that are known say how far
        apart = max((_difference(other[key], expected) for other in others), default=0.0)
        assert _difference(curve[key], expected) <= max(_ELSEWHERE, _APART * apart), key


def _difference(values: list[float], expected: list[float]) -> float:
    """The largest, of a value over 1 in shares of it."""
    return max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(values, expected, strict=True))


@pytest.mark.parametrize("name", ["topk", "batch_topk", "jumprelu"])
def test_the_rounded_proposal_trains_as_the_exact_product_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert golden_run.BATCH * golden_run.WIDTH * golden_run.N_LATENTS < cpu.WORTH, "else the other curve is rounded too"
    exact = _curve(name)
    monkeypatch.setattr(cpu, "WORTH", 0)
    for key, rounded in golden_run.curve(name).items():
        torch.testing.assert_close(torch.tensor(rounded), torch.tensor(exact[key]), rtol=_ELSEWHERE, atol=_ELSEWHERE)
