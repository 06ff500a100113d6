"""The path for GPUs, here: on CPU tensors through Triton's interpreter, or with TRITON_INTERPRET=0 on a GPU itself."""

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from unweave import types
from unweave.kernels import density, device
from unweave.types import Codes

from ..conftest import mask_of_kind

collect_ignore_glob = [] if find_spec("triton") else ["test_*.py"]  # Triton has no builds but for Linux
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"


@pytest.fixture(autouse=True)
def _gpu_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sends every operation down the path for GPUs, however full the codes are."""
    monkeypatch.setattr(device, "GPUS", {"cuda", "cpu"} if IS_INTERPRETED else {"cuda"})
    monkeypatch.setattr(types, "_SORTED_BY_NUMPY", set())
    monkeypatch.setattr(density, "DENSE_FROM", 2.0)
    with torch.device("cpu" if IS_INTERPRETED else "cuda"):
        yield


@pytest.fixture(autouse=True, scope="session")
def _quick_interpreter() -> Iterator[None]:
    """Triton's interpreter looks through its whole language at every call within a program; once is enough."""
    if not IS_INTERPRETED:
        yield
        return
    from triton.runtime import interpreter

    seen = set()

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        module = function.fn.__globals__["__name__"]
        if module.startswith("triton.") and module not in seen:
            seen.add(module)
            interpreter._patch_lang(function.fn)
        return function.rewrite()(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(interpreter.InterpretedFunction, "__call__", call)
        yield


@pytest.fixture(params=["sparse", "with hot latents", "with empty rows and silent latents", "full", "no entry"])
def codes(request: pytest.FixtureRequest, make_codes: Callable[..., Codes]) -> Codes:
    """Codes in float64 of odd shapes, some of whose values are explicit zeros."""
    mask = mask_of_kind(request.param, 23, 31)
    made = make_codes(*mask.shape, mask=mask)
    made.values[::5] = 0.0
    return made
