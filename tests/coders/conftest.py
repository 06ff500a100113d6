"""One small coder of every architecture, as it might be in the middle of training, in float64."""

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from unweave.coders import Moment, SparseCoder, architecture, architectures

N_ROWS, N_LATENTS, WIDTH = 100, 63, 7


@pytest.fixture
def x() -> Tensor:
    return torch.randn(N_ROWS, WIDTH, dtype=torch.float64) + 0.5


@pytest.fixture(params=sorted(architectures()))
def coder(request: pytest.FixtureRequest, x: Tensor) -> SparseCoder:
    cls = architecture(request.param)
    sparse = {"k": 5} if any(field.name == "k" for field in fields(cls.Config)) else {}
    coder = cls(cls.Config(n_latents=N_LATENTS, **sparse), WIDTH).double()
    with torch.no_grad():
        coder.W_enc.add_(0.3 * torch.randn_like(coder.W_enc))
        coder.W_enc[::9] *= 0.01  # quiet latents, whose positive pre-activations are never among the largest
        coder.b_enc.copy_(0.1 * torch.randn_like(coder.b_enc))
        coder.b_enc[::9] = 0.01
        coder.b_dec.copy_(torch.randn_like(coder.b_dec))
    coder.loss(x, Moment(0.0, torch.zeros(N_LATENTS, dtype=torch.bool)))  # thresholds that follow training have moved
    return coder
