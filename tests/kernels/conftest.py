"""Both routes of every kernel, and masks of active entries of every kind."""

from collections.abc import Callable

import pytest
import torch

from unweave.kernels import density
from unweave.types import Codes


@pytest.fixture(params=["sparse route", "dense route"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Forces one of the two routes, whatever the density."""
    monkeypatch.setattr(density, "DENSE_FROM", 2.0 if request.param == "sparse route" else 0.0)
    return request.param


@pytest.fixture(params=["sparse", "with empty rows and silent latents", "full", "one entry", "no entry", "one row"])
def codes(request: pytest.FixtureRequest, make_codes: Callable[..., Codes]) -> Codes:
    """Seven to sixty-three rows over a hundred latents, in float64."""
    mask = torch.rand(63, 100) < 0.08
    if request.param == "with empty rows and silent latents":
        mask[[0, 1, 30, 62]] = False
        mask[:, [0, 7, 8, 99]] = False
    elif request.param == "full":
        mask = torch.ones(7, 100, dtype=torch.bool)
    elif request.param == "one entry":
        mask[:] = False
        mask[7, 63] = True
    elif request.param == "no entry":
        mask[:] = False
    elif request.param == "one row":
        mask = torch.rand(1, 100) < 0.1
    return make_codes(*mask.shape, mask=mask)
